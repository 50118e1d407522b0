"""Options in vain, on a machine without a GPU and of a model without pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensign.cli.remarks import remarks
from tensign.config import ModelConfig, ServerConfig
from tensign.model import Model


def test_options_that_do_nothing_here_are_told_and_no_others(mean_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.load(mean_model, ModelConfig(device="cpu", gpu_decoding=True), name="mean")
    try:
        given = ServerConfig(device_memory_bytes=1 << 30, cuda_shared_memory=True)
        assert list(remarks([model], model.config, given)) == [
            "--device-memory does nothing: no model runs on a GPU",
            "--cuda-shared-memory does nothing: no model runs on a GPU",
            "--gpu-decoding does nothing for mean: it takes no encoded pictures",
        ]
        assert list(remarks([model], ModelConfig(), ServerConfig())) == []
        monkeypatch.setattr(Model, "device", "cuda:0")
        assert list(remarks([model], ModelConfig(), given)) == []
    finally:
        model.close()
