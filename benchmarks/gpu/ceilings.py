"""What the machine allows: the limits that the engine's choices are judged by.

    python benchmarks/gpu/ceilings.py [--out FILE]      # about two minutes on an H100

copies: a batch of uint8 [B,300,300,3] to the GPU from ordinary and from pinned memory, GB/s (torch). batch_size_changes: ms of
a batch when 8 and 16 rows take turns, in one session and in two. onnxruntime: ResNet-18
with each setting that the CUDA provider offers: arrays in and out as the engine does it, IO binding with input and output on
the device (the computation alone), with TF32 and without, channels-last, CUDA graphs. torch: the same network in float16,
channels-last, eager and compiled. Figures are medians, in images/s. Written to benchmarks/results/gpu-ceilings.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import device
import numpy as np
import onnxruntime
import torch
from torchvision.models import resnet18

sys.path.append(str(Path(__file__).resolve().parents[1]))
import models

RESULTS = Path(__file__).resolve().parents[1] / "results"
BATCHES = (1, 8, 64, 256)
BASE = {"device_id": "0", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
SETTINGS = {
    "default": {},
    "use_tf32=0": {"use_tf32": "0"},
    "prefer_nhwc": {"prefer_nhwc": "1"},
    "exhaustive": {"cudnn_conv_algo_search": "EXHAUSTIVE"},
    "cuda_graph": {"enable_cuda_graph": "1"},
    "cuda_graph, prefer_nhwc": {"enable_cuda_graph": "1", "prefer_nhwc": "1"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu-ceilings.json")
    options = parser.parse_args()
    onnxruntime.preload_dlls()
    document = device.described()
    print(device.headline(document))
    for name, part in (
        ("copies_gb_per_s", copies),
        ("batch_size_changes", changes),
        ("onnxruntime", onnx),
        ("torch", in_torch),
    ):
        try:
            document[name] = part()
        except Exception as error:  # one ceiling less is no reason to lose the others
            document[name] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        print(f"\n{name}")
        for row, figures in document[name].items():
            print(f"  {row:<44}{figures}")
        options.out.write_text(json.dumps(document, indent=2) + "\n")


def copies() -> dict[str, Any]:
    table: dict[str, Any] = {}
    for batch in BATCHES:
        ordinary = torch.randint(0, 256, (batch, 300, 300, 3), dtype=torch.uint8)
        pinned, there = ordinary.pin_memory(), ordinary.cuda()
        table[f"{batch} rows"] = {
            name: round(ordinary.nbytes / _seconds(partial(there.copy_, source, non_blocking=True)) / 1e9, 2)
            for name, source in (("ordinary", ordinary), ("pinned", pinned))
        }
    return table


def changes() -> dict[str, Any]:
    """cuDNN plans its convolutions for the shape it sees, and forgets the plan for the one it saw before."""
    rows = np.zeros((16, 300, 300, 3), np.uint8)
    one, other = _open({}), _open({})
    turns = itertools.cycle((8, 16))

    def mean(sessions: dict[int, Any]) -> float:
        def run() -> None:
            size = next(turns)
            sessions[size].run(None, {"image": rows[:size]})

        return round(_seconds(run, sync=False) * 1000, 2)

    return {"one session": mean({8: one, 16: one}), "a session each": mean({8: one, 16: other})}


def _open(setting: dict[str, str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = [("CUDAExecutionProvider", BASE | setting)]
    session = onnxruntime.InferenceSession(models.make("resnet18") / "model.onnx", options, providers=providers)
    assert session.get_providers()[0] == "CUDAExecutionProvider", session.get_providers()
    return session


def onnx() -> dict[str, Any]:
    file = str(models.make("resnet18") / "model.onnx")
    rows = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 300, 300, 3), np.uint8)
    reference = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"image": rows[:8]})[0]
    table: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        began = time.perf_counter()
        try:
            session = _open(setting)
        except Exception as error:  # a setting that this graph cannot have
            table[name] = {"failed": " ".join(str(error).split())[:300]}
            continue
        table[name] = {"load_s": round(time.perf_counter() - began, 2)}
        for batch in BATCHES:
            try:
                table[name] |= _session(session, rows[:batch], reference, graphs="graph" in name)
            except Exception as error:
                table[name][f"{batch} failed"] = str(error)[:200]
    return table


def _session(session: Any, rows: Any, reference: Any, *, graphs: bool) -> dict[str, Any]:
    batch = len(rows)
    figures: dict[str, Any] = {}
    began = time.perf_counter()
    if not graphs:
        session.run(None, {"image": rows})
        figures[f"{batch} first_ms"] = round((time.perf_counter() - began) * 1000, 1)
        figures[f"{batch} arrays"] = round(batch / _seconds(lambda: session.run(None, {"image": rows}), sync=False))
    name = session.get_outputs()[0].name
    source = onnxruntime.OrtValue.ortvalue_from_numpy(rows, "cuda", 0)
    target = onnxruntime.OrtValue.ortvalue_from_shape_and_type([batch, 1000], np.float32, "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", source)
    binding.bind_ortvalue_output(name, target)
    options = onnxruntime.RunOptions()
    if graphs:
        options.add_run_config_entry("gpu_graph_id", str(batch))

    def run() -> None:
        session.run_with_iobinding(binding, options)

    run()
    run()
    figures[f"{batch} bound"] = round(batch / _seconds(run, sync=False))
    staging = torch.from_numpy(rows).pin_memory()
    as_numpy = staging.numpy()

    def updated() -> None:
        source.update_inplace(as_numpy)
        session.run_with_iobinding(binding, options)
        target.numpy()

    figures[f"{batch} pinned, updated in place"] = round(batch / _seconds(updated, sync=False))
    if batch <= len(reference):
        figures[f"{batch} difference"] = float(f"{np.abs(target.numpy() - reference[:batch]).max() / reference.max():.2e}")
    return figures


def in_torch() -> dict[str, Any]:
    table: dict[str, Any] = {}
    torch.manual_seed(0)
    network = resnet18(weights=None).eval().cuda().half().to(memory_format=torch.channels_last)

    def whole(pixels: Any) -> Any:
        return network(pixels.permute(0, 3, 1, 2).half() / 255).float().softmax(-1)

    for name, run in (("eager", whole), ("compiled", torch.compile(whole, mode="reduce-overhead"))):
        table[f"float16 channels-last {name}"] = figures = {}
        for batch in (1, 64, 256) if name == "eager" else (64,):
            pixels = torch.randint(0, 256, (batch, 300, 300, 3), dtype=torch.uint8, device="cuda")
            with torch.inference_mode():
                run(pixels)
                figures[batch] = round(batch / _seconds(partial(run, pixels)))
    return table


def _seconds(call: Callable[[], object], *, sync: bool = True) -> float:
    """Median time of one call, until the GPU is done with it."""
    took: list[float] = []
    for number in range(25):
        began = time.perf_counter()
        with torch.inference_mode():
            call()
        if sync:
            torch.cuda.synchronize()
        if number >= 3:
            took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    main()
