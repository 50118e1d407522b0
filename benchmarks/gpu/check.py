"""Is the GPU right, and how fast is it: CUDA beside the CPU, on every model at hand.

    python benchmarks/gpu/check.py [--device cuda:0] [--out FILE] [MODEL ...]

MODEL: MLmodel directories; none named: the demo's model, ResNet-18 (where torch and onnx are installed), and the fixtures
beside the checkout that carry an `onnx` flavor. Prints device, driver and versions; for each model the greatest difference
between the two devices and whether they agree on the best class; for each batch size the latency of one run and images/s.
Where only torch drives the GPU, ResNet-18 is compared in torch. Written to benchmarks/results/gpu-check.json. About a minute
on an H100. Ends with status 1 where devices disagree by more than TOLERANCE, 2 where nothing could run.

`--device cpu` compares the CPU with itself: it shows that the script works, and nothing more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import device
import numpy as np
import numpy.typing as npt

from tensign.demo import MODEL as DEMO
from tensign.engines import Engine
from tensign.engines.onnx import OnnxEngine
from tensign.errors import ProviderUnavailable
from tensign.plan import ModelPlan

BENCHMARKS = Path(__file__).resolve().parents[1]
FIXTURES = BENCHMARKS.parents[1] / "shared" / "fixtures"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COMPARED_ROWS = 32
TOLERANCE = 1e-2  # of the greatest output: TF32 keeps three digits of each product, a wrong kernel keeps none
RUNS, SECONDS = 30, 1.0  # of one batch size, whichever ends first

Array = npt.NDArray[Any]
Run = Callable[[Array], Array]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "results" / "gpu-check.json")
    options = parser.parse_args()
    document = device.described()
    print(device.headline(document))
    document["models"] = {}
    for path in options.models or _at_hand():
        try:
            report = _compared(path, options.device)
        except ProviderUnavailable as error:
            print(f"\n{path.name}: {error}")
            continue
        document["models"][path.name] = report
        _print(path.name, report)
    if not document["models"] and (torch_report := _torch_resnet18(options.device)):
        document["models"]["resnet18 in torch"] = torch_report
        _print("resnet18 in torch", torch_report)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=2) + "\n")
    if not document["models"]:
        return 2
    return int(any(not report["relative_difference"] <= TOLERANCE for report in document["models"].values()))


def _at_hand() -> list[Path]:
    found = [DEMO]
    try:
        sys.path.append(str(BENCHMARKS))
        import models

        found.append(models.make("resnet18"))
    except ImportError as error:
        print(f"resnet18: cannot be made here: {error}")
    return found + [path for path in sorted(FIXTURES.glob("*")) if (path / "MLmodel").exists() and "onnx" in path.name]


def _compared(path: Path, where: str) -> dict[str, Any]:
    plan = ModelPlan.of(path)
    return _report(_run(OnnxEngine(plan.file, "cpu")), _run(OnnxEngine(plan.file, where)), _rows(OnnxEngine(plan.file, "cpu")))


def _run(engine: Engine) -> Run:
    engine.load()
    name, output = engine.inputs[0].name, engine.outputs[0].name
    return lambda rows: engine.run({name: rows})[output]


def _rows(engine: Engine) -> Array:
    """[256,...] random rows of the kind that the network takes: bytes of any value, floats about a standard deviation wide."""
    engine.load()
    spec = engine.inputs[0]
    shape = (max(BATCHES), *(axis if axis != -1 else 224 for axis in spec.shape[1:]))
    random = np.random.default_rng(0)
    if spec.dtype.kind == "u":
        return random.integers(0, 256, shape, np.uint8).astype(spec.dtype)
    return random.standard_normal(shape, np.float32).astype(spec.dtype)


def _report(cpu: Run, gpu: Run, rows: Array) -> dict[str, Any]:
    wanted = cpu(rows[:COMPARED_ROWS])
    got = {batch: _in_batches(gpu, rows[:COMPARED_ROWS], batch) for batch in BATCHES if batch <= COMPARED_ROWS}
    difference = max(float(np.abs(answer - wanted).max()) for answer in got.values())
    return {
        "input": f"{rows.dtype} {list(rows.shape[1:])}",
        "difference": difference,
        "relative_difference": difference / float(np.abs(wanted).max()),
        "same_best_class": min(float((answer.argmax(-1) == wanted.argmax(-1)).mean()) for answer in got.values()),
        "cpu_ms": _median_ms(lambda: cpu(rows[:1])),
        "batches": {batch: _timed(gpu, rows[:batch]) for batch in BATCHES},
    }


def _in_batches(run: Run, rows: Array, batch: int) -> Array:
    return np.concatenate([run(rows[at : at + batch]) for at in range(0, len(rows), batch)])


def _timed(run: Run, rows: Array) -> dict[str, float]:
    ms = _median_ms(lambda: run(rows))
    return {"ms": ms, "images_per_s": len(rows) / ms * 1000}


def _median_ms(call: Callable[[], object]) -> float:
    for _ in range(3):
        call()
    took: list[float] = []
    while len(took) < 3 or (len(took) < RUNS and sum(took) < SECONDS):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def _torch_resnet18(where: str) -> dict[str, Any] | None:
    """The same network without ONNX Runtime, for machines where only torch drives the GPU."""
    try:
        import torch
        from torchvision.models import resnet18
    except ImportError:
        return None
    if where != "cpu" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no GPU either")
        return None

    def on(target: str) -> Run:
        torch.manual_seed(0)
        network = resnet18(weights=None).eval().to(target)

        def run(rows: Array) -> Array:
            with torch.inference_mode():
                pixels = torch.from_numpy(rows).to(target).permute(0, 3, 1, 2).float() / 255
                answer: Array = network(pixels).softmax(-1).cpu().numpy()
                return answer

        return run

    rows = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 300, 300, 3), np.uint8)
    return _report(on("cpu"), on(where), rows)


def _print(name: str, report: dict[str, Any]) -> None:
    print(f"\n{name}: {report['input']}")
    print(
        f"  greatest difference from the CPU {report['difference']:.1e} ({report['relative_difference']:.1e} of the"
        f" greatest output), same best class in {report['same_best_class']:.1%};"
        f" one image on the CPU {report['cpu_ms']:.2f} ms"
    )
    print(f"  {'batch':>6}{'ms':>10}{'images/s':>12}")
    for batch, seen in report["batches"].items():
        print(f"  {batch:>6}{seen['ms']:>10.2f}{seen['images_per_s']:>12.0f}")


if __name__ == "__main__":
    sys.exit(main())
