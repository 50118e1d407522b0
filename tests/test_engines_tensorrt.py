"""What TensorRT is asked for, and where its engines are kept. The provider itself runs on no machine of the tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from machines import FakeDriver, Machine
from tensign.doctor.lookup import Lookup
from tensign.engines import tensorrt

BATCH: dict[str, Any] = {"pixels": np.zeros((8, 300, 200, 3), np.uint8), "age": np.zeros((8, 1), np.float32)}


def test_the_profile_is_the_batch_and_nothing_else() -> None:
    given = tensorrt.settings(1, BATCH, "")
    shapes = "pixels:8x300x200x3,age:8x1"
    profile = {f"trt_profile_{bound}_shapes": shapes for bound in ("min", "opt", "max")}
    assert given == {"device_id": "1", "trt_fp16_enable": "0", **profile}
    assert tensorrt.settings(0, None, "", half=True) == {"device_id": "0", "trt_fp16_enable": "1"}


def test_a_name_that_the_setting_cannot_hold_leaves_the_shapes_to_the_first_run() -> None:
    assert tensorrt.settings(0, {"serving_default_x:0": BATCH["pixels"]}, "") == tensorrt.settings(0, None, "")


def test_engines_lie_by_batch_size_and_timings_beside_them(tmp_path: Path) -> None:
    kept = tmp_path / "H100"
    given = tensorrt.settings(0, BATCH, str(kept))
    assert (given["trt_engine_cache_enable"], given["trt_timing_cache_enable"]) == ("1", "1")
    assert (given["trt_engine_cache_path"], given["trt_timing_cache_path"]) == (str(kept / "8"), str(kept))
    assert tensorrt.settings(0, None, str(kept))["trt_engine_cache_path"] == str(kept / "any")
    assert sorted(path.name for path in kept.iterdir()) == ["8", "any"]


@dataclass
class FakeTensorRT:
    """libnvinfer.so.10."""

    version: int

    def getInferLibVersion(self) -> int:
        return self.version


def machine(root: Path, version: int | None = 101300, **options: Any) -> Lookup:
    """One with TensorRT."""
    lookup = Machine(root, **options).lookup()

    def library(name: str) -> Any:
        return FakeTensorRT(version) if name == "libnvinfer.so.10" and version else lookup.library(name)

    return replace(lookup, library=library)


def test_the_folder_names_the_gpu_and_every_version(tmp_path: Path) -> None:
    def folder(lookup: Lookup, device: str = "cuda:0") -> str:
        return tensorrt.folder(str(tmp_path / "cache"), device, lookup)

    first = folder(machine(tmp_path))
    assert Path(first).parent == tmp_path / "cache"
    parts = "NVIDIA-H100-80GB-HBM3-81920-MiB-sm90-driver-580.159.04-TensorRT-101300-onnxruntime-1.31.1"
    assert Path(first).name == parts
    others = [
        folder(machine(tmp_path), "cuda:1"),  # an instance of the same GPU
        folder(machine(tmp_path, 101301)),
        folder(machine(tmp_path, None)),
        folder(machine(tmp_path, driver=FakeDriver(capability=(8, 0)))),
        folder(machine(tmp_path, driver=None)),
    ]
    assert len({first, *others}) == 6
    assert tensorrt.folder("", "cuda:0", machine(tmp_path)) == ""
