"""What is read of a scikit-learn MLmodel, with trust and without, and what is said of it."""

from __future__ import annotations

import json
import os.path
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tables import NUMBERS, column, patients, saved
from tensign.errors import UnsupportedModel, UntrustedModel
from tensign.mlmodel import ModelManifest
from tensign_converters.tables.original import read_original

TARGET = [{"name": "target", "type": "long", "required": True}]
TABLE = patients(60)[NUMBERS]


def fitted() -> Any:
    return LogisticRegression(max_iter=1000).fit(TABLE, (TABLE.age > 50).astype(int))


def as_skops(target: Path, estimator: Any) -> ModelManifest:
    flavor = {"pickled_model": "model.skops", "serialization_format": "skops", "sklearn_version": "1.9.1"}
    manifest = saved(target, estimator, TABLE, TARGET, flavors={"sklearn": flavor})
    skops.io.dump(estimator, target / "model.skops")
    return manifest


def test_a_pickle_is_opened_with_trust_alone(tmp_path: Path) -> None:
    manifest = saved(tmp_path / "model", fitted(), TABLE, TARGET)
    with pytest.raises(UntrustedModel, match=r"model\.pkl is a pickle: reading it runs .* --trust loads it in a confined"):
        read_original(manifest, trust=False)
    original = read_original(manifest, trust=True)
    answer = original.answers({name: TABLE[name].to_numpy()[:3] for name in TABLE})["target"]
    assert answer.dtype == np.int64 and answer.tolist() == original.estimator.predict(TABLE[:3]).tolist()
    assert original.gives_probabilities and original.notes == ()


def test_skops_is_opened_without_trust_where_skops_knows_every_type(tmp_path: Path) -> None:
    assert read_original(as_skops(tmp_path / "known", fitted()), trust=False).estimator.coef_.shape == (1, 3)
    stranger = make_pipeline(FunctionTransformer(os.path.join), LogisticRegression())
    with pytest.raises(UntrustedModel, match=r"holds types that skops does not trust: posixpath\.join: reading it runs"):
        read_original(as_skops(tmp_path / "unknown", stranger), trust=False)


def test_another_version_is_noted(tmp_path: Path) -> None:
    manifest = saved(tmp_path / "model", fitted(), TABLE, TARGET)
    file = tmp_path / "model" / "model.pkl"
    file.write_bytes(cloudpickle.dumps(fitted()).replace(b"1.9.1", b"1.8.9"))
    original = read_original(manifest, trust=True)
    assert len(original.notes) == 1
    assert original.notes[0].startswith("Trying to unpickle estimator LogisticRegression from version 1.8.9 when using version")
    assert original.versions == {"scikit-learn": original.versions["scikit-learn"], "written_by_scikit-learn": "1.9.1"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"flavors": {"python_function": {"predict_fn": "score_samples"}}},
            "predict_fn 'score_samples': wanted predict or",
        ),
        ({"signature": {"inputs": [column("age", TABLE.age)]}}, "wanted a signature with outputs and without params"),
        ({"flavors": {"sklearn": {"pickled_model": "../model.pkl"}}}, "which is no file of the directory"),
    ],
    ids=["method", "no outputs", "another's file"],
)
def test_what_cannot_be_converted_is_refused_before_it_is_read(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    manifest = saved(tmp_path / "model", fitted(), TABLE, TARGET, **json.loads(json.dumps(changes)))
    (tmp_path / "model" / "model.pkl").write_bytes(b"nothing that anybody could read")
    with pytest.raises(UnsupportedModel, match=text):
        read_original(manifest, trust=True)
