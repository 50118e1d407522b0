"""Networks that people train with fastai, converted and held against themselves: python tests/architectures.py [NAME ...].

Random weights, batch norms calibrated on real pictures, so that outputs differ from picture to picture. Prints a table.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torchvision

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import fastai.vision.all as fastai

    from tensign.proof.parity import Parity
    from tensign.proof.samples import photographs, samples
    from tensign.signature import Signature
    from tensign_converters.learners.learned import learn
    from tensign_converters.learners.learner import record
    from tensign_converters.pictures import export
    from tensign_converters.prove import prove

NAMES = ("bird", "cat", "dog")
SIZE = 96
SIGNED = (120, 160)  # height and width in the signature

ARCHITECTURES: dict[str, Callable[[Any], Any]] = {
    "xresnet18": lambda dls: fastai.Learner(dls, fastai.xresnet18(n_out=3)),
    "squeezenet1_1": lambda dls: fastai.vision_learner(dls, fastai.squeezenet1_1, pretrained=False),
    "convnext_atto": lambda dls: fastai.vision_learner(dls, "convnext_atto", pretrained=False),
    "unet-resnet18": lambda dls: fastai.unet_learner(dls, fastai.resnet18, pretrained=False, n_out=3),
    "resnet18": lambda dls: fastai.vision_learner(dls, fastai.resnet18, pretrained=False),
    "resnet34": lambda dls: fastai.vision_learner(dls, fastai.resnet34, pretrained=False),
    "resnet50": lambda dls: fastai.vision_learner(dls, fastai.resnet50, pretrained=False),
    "xresnet50": lambda dls: fastai.Learner(dls, fastai.xresnet50(n_out=3)),
    "densenet121": lambda dls: fastai.vision_learner(dls, fastai.densenet121, pretrained=False),
    "efficientnet_b0": lambda dls: fastai.vision_learner(dls, "efficientnet_b0", pretrained=False),
    "vgg11_bn": lambda dls: fastai.vision_learner(dls, fastai.vgg11_bn, pretrained=False),
}


@dataclass(frozen=True)
class Measured:
    """One conversion. seconds: of the export alone; difference: of logits, relative to the row's largest."""

    name: str
    parameters: int
    seconds: float
    nodes: int
    difference: float
    proved: Parity


def measure(name: str) -> Measured:
    """Builds, calibrates, converts and proves one. Raises ParityFailed beyond 1e-4 on logits."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai's and the exporter's own
        learner = ARCHITECTURES[name](_loaders(segments=name.startswith("unet")))
        _calibrate(learner)
        learned = learn(record(learner, {}), SIGNED)
        file = Path(folder, "model.onnx")
        started = time.perf_counter()
        export.export(learned, file)
        seconds = time.perf_counter() - started
        subject = learned.subject(_signature(learned.shape))
        proof, _ = prove(subject, file, samples(subject.signature, subject.preprocess, crops=24))
        nodes = len(onnx.load(file).graph.node)
    count = sum(each.numel() for each in learned.network.parameters())
    return Measured(name, count, seconds, nodes, proof.parity.relative_difference, proof.parity)


def _loaders(*, segments: bool) -> Any:
    block = fastai.DataBlock(
        (fastai.ImageBlock, fastai.MaskBlock(list(NAMES)) if segments else fastai.CategoryBlock(list(NAMES))),
        get_y=(lambda _: np.zeros((SIZE, SIZE), np.uint8)) if segments else (lambda file: NAMES[len(file.name) % 3]),
        splitter=fastai.IndexSplitter([0]),
        item_tfms=fastai.Resize(SIZE),
        batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(*fastai.imagenet_stats, cuda=False)],
    )
    return block.dataloaders(photographs(), bs=4, num_workers=0, device="cpu")


def _calibrate(learner: Any) -> None:
    """Batch norms learn mean and variance of real pictures, as training would teach them; the weights stay random.

    Bottlenecks add a quarter of what they compute: at full strength 16 random ones in a row amplify rounding so much that
    torch's own float32 is 1.6e-4 from its float64.
    """
    crops = [sample["input-0"] for sample in samples(_signature((3,)), crops=40)]
    network = learner.model.eval()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = None
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            torch.nn.init.constant_(module.bn3.weight, 0.25)
    with torch.no_grad():
        for batch in learner.dls.test_dl(crops, bs=25, num_workers=0):
            network(batch[0].as_subclass(torch.Tensor))
    network.eval()


def _signature(shape: Sequence[int]) -> Signature:
    specs = {"inputs": ("uint8", [-1, *SIGNED, 3]), "outputs": ("float32", [-1, *shape])}
    return Signature.parse(
        {part: [{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": axes}}] for part, (dtype, axes) in specs.items()}
    )


def main(names: list[str]) -> int:
    print(
        "| network | parameters | export s | nodes | logits, relative | spread of logits | top-1 |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name in names or ARCHITECTURES:
        one = measure(name)
        agreement = one.proved.top1_agreement
        print(
            f"| {name} | {one.parameters / 1e6:.1f} M | {one.seconds:.1f} | {one.nodes} | {one.difference:.1e}"
            f" | {one.proved.spread:.2f} | {agreement if agreement is None else f'{agreement:.1%}'} |",
            flush=True,
        )
    print(f"\nlargest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
