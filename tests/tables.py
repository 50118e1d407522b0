"""A made-up table of patients, and MLmodel directories of what scikit-learn learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt
import pandas as pd

from conftest import write_mlmodel
from tensign.mlmodel import ModelManifest, read_mlmodel
from tensign.proof.parity import Parity
from tensign_converters.prove import prove
from tensign_converters.tables.tabular import Tabular

TYPES = {"int64": "long", "int32": "integer", "float64": "double", "float32": "float", "bool": "boolean"}
NUMBERS = ["age", "chol", "peak"]


def patients(count: int = 240) -> pd.DataFrame:
    """age, chol, peak, cp (0 to 3) and thal (text)."""
    random = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "age": random.integers(20, 80, count),
            "chol": random.normal(200, 40, count),
            "peak": random.exponential(1, count).round(1),
            "cp": random.integers(0, 4, count),
            "thal": random.choice(["fixed", "normal", "reversible"], count),
        }
    )


def risk(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """[n]: what there is to be learned."""
    noise = np.random.default_rng(8).normal(0, 0.5, len(table))
    fixed = np.where(table.thal.to_numpy() == "fixed", 1.0, -1.0) if "thal" in table else 0.0
    return np.asarray((table.age - 50) / 10 + (table.chol - 200) / 40 + table.peak - 1 + fixed + noise, np.float64)


def column(name: str, values: Any) -> dict[str, Any]:
    """As MLflow infers it."""
    missing = bool(pd.isna(values).any())
    return {"name": name, "type": TYPES.get(str(values.dtype), "string"), "required": not missing}


def saved(target: Path, estimator: Any, table: pd.DataFrame, outputs: list[dict[str, Any]], **document: Any) -> ModelManifest:
    """A fitted estimator, pickled, in an MLmodel directory whose inputs are the columns of `table`."""
    target.mkdir(parents=True)
    (target / "model.pkl").write_bytes(cloudpickle.dumps(estimator))
    flavor = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "sklearn_version": "1.9.1"}
    document.setdefault("signature", {"inputs": [column(name, table[name]) for name in table], "outputs": outputs})
    return read_mlmodel(write_mlmodel(target, flavors={"sklearn": flavor, **document.pop("flavors", {})}, **document))


def with_example(target: Path, table: pd.DataFrame) -> dict[str, Any]:
    """Writes the table as MLflow writes an input example, into a directory that is there; gives what the MLmodel says of it."""
    (target / "input_example.json").write_text(table.to_json(orient="split", index=False))
    return {"artifact_path": "input_example.json", "pandas_orient": "split", "type": "dataframe"}


def proved(tabular: Tabular, file: Path) -> Parity:
    """What its proof comes to, which writes the graph into `file`."""
    subject = tabular.subject()
    assert subject.rows is not None
    subject.write(file)
    return prove(subject, file, subject.rows)[0].parity
