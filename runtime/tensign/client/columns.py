"""Records, DataFrames and arrays -> the columns of a message, by a signature of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.coltypes import ScalarType
from tensign.errors import InvalidInput
from tensign.rpc.codec import as_column
from tensign.signature import Signature
from tensign.specs import ColumnSpec
from tensign.values import is_missing


def as_columns(inputs: Any, signature: Signature) -> dict[str, npt.NDArray[Any]]:
    """{column: [n] as it travels}, of a DataFrame, a list of records, one record, or {column: array}, which the server judges.

    Raises SignatureMismatch, and InvalidInput for what the protocol cannot say.
    """
    if _is_record(inputs):
        inputs = [inputs]
    arrays = (
        {name: np.asarray(array) for name, array in inputs.items()} if _are_arrays(inputs) else signature.enforce_inputs(inputs)
    )
    compound = {
        spec.name for spec in signature.inputs if isinstance(spec, ColumnSpec) and not isinstance(spec.type, ScalarType)
    }
    return {name: _column(name, array, name in compound) for name, array in arrays.items()}


def _are_arrays(inputs: Any) -> bool:
    return isinstance(inputs, Mapping) and all(isinstance(array, np.ndarray | list | tuple) for array in inputs.values())


def _is_record(inputs: Any) -> bool:
    """One row, as a map of plain values."""
    return isinstance(inputs, Mapping) and all(
        isinstance(value, str | bytes) or not hasattr(value, "__len__") for value in inputs.values()
    )


def _column(name: str, array: npt.NDArray[Any], compound: bool) -> npt.NDArray[Any]:
    if array.dtype == object and not compound:
        for row, value in enumerate(array.flat):
            if is_missing(value):
                raise InvalidInput(
                    f'input "{name}", row {row}: missing, which the protocol cannot say of text; over HTTP null does'
                )
    try:
        return as_column(array, compound=compound)
    except InvalidInput as error:
        raise InvalidInput(f'input "{name}": {error}') from None
