"""How far served predictions are from the framework that trained the model: greatest absolute differences.

    python benchmarks/fidelity.py [FIXTURES]      # default: ../shared/fixtures beside the checkout; about 30 s

Each fastai fixture that this fastai loads is converted, served over gRPC, and compared with the golden answers that came
with it: raw rows in one request, rows over a stream, encoded files over a stream; and, inside the graph, what the network
receives.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from tensign.client import Client
from tensign.config import ModelConfig
from tensign.conversion import convert
from tensign.errors import UnsupportedModel
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.proof.parity import NETWORK_INPUT
from tensign.rpc.codec import decode_response
from tensign.testing import serving
from tensign_converters.graph import INPUT
from tensign_converters.prove import with_inner_outputs

SHARED = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


def served(path: Path, golden: dict[str, npt.NDArray[Any]], images: list[Path]) -> tuple[float, float, float]:
    """Of raw rows in one request, of rows over a stream, of files over a stream."""
    with serving(Model.load(path, ModelConfig(device="cpu"))) as address, Client(address) as client:
        raw = client.infer({"input-0": golden["inputs"]})["output-0"]
        rows, files = (
            np.concatenate([decode_response(answer.infer_response)["output-0"] for answer in client.send_stream(messages)])
            for messages in (map(client.request, golden["inputs"]), map(client.request, images))
        )
    return _worst(raw, golden["outputs"]), _worst(rows, golden["outputs"]), _worst(files, golden["outputs_images"])


def network_input(path: Path, golden: dict[str, npt.NDArray[Any]], images: list[Path]) -> float:
    """Of every 17th row and column of the tensor that the network receives, in normalised units."""
    plan = ModelPlan.of(path)
    assert plan.preprocess is not None
    session = onnxruntime.InferenceSession(with_inner_outputs(plan.file)[0], providers=["CPUExecutionProvider"])
    worst = 0.0
    for suffix, pixels in (
        ("", plan.preprocess.arrays(golden["inputs"])),
        ("_images", plan.preprocess.encoded([image.read_bytes() for image in images], height=-1, width=-1)),
    ):
        seen = session.run([NETWORK_INPUT], {INPUT: pixels})[0]
        worst = max(worst, _worst(seen[:, :, ::17, ::17], golden[f"net_input_sample{suffix}"]))
    return worst


def _worst(got: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    return float(np.abs(got - wanted).max())


def main() -> None:
    fixtures = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED
    print(f"{'greatest difference':32}{'raw':>10}{'streamed':>10}{'files':>10}{'net input':>11}")
    for source in sorted(fixtures.glob("*fastai*")):
        with np.load(source / "golden.npz", allow_pickle=False) as arrays:
            golden = dict(arrays)
        images = [source / "golden_images" / str(name) for name in golden["images"]]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "converted")
            try:
                convert(source, path, trust=True)
            except UnsupportedModel as error:
                print(f"{source.name:32}not loaded: {str(error).partition(': RuntimeError')[0]}")
                continue
            figures = served(path, golden, images)
            inside = network_input(path, golden, images)
        print(f"{source.name:32}{figures[0]:10.1e}{figures[1]:10.1e}{figures[2]:10.1e}{inside:11.1e}")


if __name__ == "__main__":
    main()
