"""Arrays by name as the DataFrame or array that MLflow would hand to a model. In the worker only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tensign.signature import Arrays


def model_input(batch: Arrays, declared: list[dict[str, Any]], *, single_as_dict: bool) -> Any:
    """A DataFrame of columns; one tensor as an array, several as {name: array}. Always a copy: a model may keep what it got.

    single_as_dict: one named tensor as {name: array} too, which MLflow does where it is sent one.
    """
    if declared[0]["column"]:
        import pandas

        named = declared[0]["named"]
        columns = {
            spec["name"] if named else index: batch[spec["name"]]
            for index, spec in enumerate(declared)
            if spec["name"] in batch
        }
        return pandas.DataFrame({name: _column(array) for name, array in columns.items()})
    arrays = {name: np.array(array) for name, array in batch.items()}
    if len(arrays) == 1 and not (single_as_dict and declared[0]["named"]):
        return next(iter(arrays.values()))
    return arrays


def _column(array: Any) -> Any:
    """Values of compound types as a list, which pandas takes one by one."""
    return array.tolist() if array.dtype == object else np.array(array)
