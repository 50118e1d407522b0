"""`/invocations` of a fastai model beside MLflow 2, the last that has a fastai flavor, in an environment of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import CPU, SHARED
from tensign import conversion
from tensign.config import ModelConfig
from tensign.model import Model
from tensign.testing import running
from test_invocations import JSON, Pair, mlflow_serving

NAME = "faces-fastai-2.8"
MLFLOW2 = Path(__file__).parents[1] / "build" / "mlflow2" / "bin" / "python"

CASES: dict[str, Callable[[Any], Any]] = {
    "inputs": lambda x: {"inputs": x.tolist()},
    "instances": lambda x: {"instances": x.tolist()},
    "flat cells": lambda x: {"dataframe_split": {"data": [[row.ravel().tolist()] for row in x]}},
    "one picture": lambda x: {"inputs": x[:1].tolist()},
    "another rank": lambda x: {"inputs": x[0].tolist()},
    "another size": lambda x: {"inputs": x[:, :200].tolist()},
    "300": lambda x: {"inputs": np.full((1, 300, 300, 3), 300).tolist()},
    "a text": lambda x: {"inputs": "abc"},
    "by a name": lambda x: {"inputs": {"image": x.tolist()}},
    "no rows": lambda x: {"inputs": []},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """MLflow 2 beside tensign, which serves the model converted and as it is."""
    path = SHARED / "fixtures" / NAME
    if not path.is_dir():
        pytest.skip(f"shared/fixtures/{NAME} is not beside this checkout")
    assert MLFLOW2.exists(), "make test makes this environment: .ci/environment mlflow2"
    cache = tmp_path_factory.mktemp("cache")
    native = ModelConfig(device="cpu", trust=True, engine="fastai", max_batch_size=2)
    with mlflow_serving(MLFLOW2, {"converted": path, "native": path}) as theirs:
        converted = conversion.servable(path, trust=True, cache=cache)
        models = [Model.load(converted, CPU, name="converted"), Model.load(path, native, name="native")]
        with running(*models) as server:
            assert server.http_address is not None
            both = Pair(theirs, server.http_address)
            yield {"converted": both, "native": both}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model", ["converted", "native"])
def test_fastai(pair: dict[str, Pair], model: str, case: str) -> None:
    pixels = np.load(SHARED / "fixtures" / NAME / "golden.npz")["inputs"][:2]
    pair[model].agree(model, case, CASES[case](pixels), JSON)
