"""The one table of datatypes: Open Inference Protocol <-> numpy <-> MLflow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensign.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Datatype:
    """One row of the table.

    protocol: its name on the wire; numpy: little-endian dtype; column: MLflow's name for it in a column signature,
    None where it has none; contents: the field of InferTensorContents that carries it, None where it travels raw only.
    """

    protocol: str
    numpy: np.dtype[np.generic]
    column: str | None
    contents: str | None


TABLE = (
    Datatype("BOOL", np.dtype("bool"), "boolean", "bool_contents"),
    Datatype("UINT8", np.dtype("uint8"), None, "uint_contents"),
    Datatype("UINT16", np.dtype("<u2"), None, "uint_contents"),
    Datatype("UINT32", np.dtype("<u4"), None, "uint_contents"),
    Datatype("UINT64", np.dtype("<u8"), None, "uint64_contents"),
    Datatype("INT8", np.dtype("int8"), None, "int_contents"),
    Datatype("INT16", np.dtype("<i2"), None, "int_contents"),
    Datatype("INT32", np.dtype("<i4"), "integer", "int_contents"),
    Datatype("INT64", np.dtype("<i8"), "long", "int64_contents"),
    Datatype("FP16", np.dtype("<f2"), None, None),
    Datatype("FP32", np.dtype("<f4"), "float", "fp32_contents"),
    Datatype("FP64", np.dtype("<f8"), "double", "fp64_contents"),
    Datatype("BYTES", np.dtype("object"), "string", "bytes_contents"),
)

_BY_PROTOCOL = {row.protocol: row for row in TABLE}
_BY_NUMPY = {row.numpy: row for row in TABLE}


def of_protocol(name: str) -> Datatype:
    """The row of a wire name such as "UINT8". Raises InvalidInput for a name that the protocol does not have."""
    try:
        return _BY_PROTOCOL[name]
    except KeyError:
        raise InvalidInput(f'datatype "{name[:32]}" is unknown; wanted one of {", ".join(_BY_PROTOCOL)}') from None


def of_numpy(dtype: np.dtype[np.generic]) -> Datatype:
    """The row of a numpy dtype; text and bytes of any size are BYTES. Raises InvalidInput where there is none."""
    row = _BY_NUMPY.get(np.dtype("object") if dtype.kind in "OSU" else dtype.newbyteorder("<"))
    if row is None:
        raise InvalidInput(f"dtype {dtype} has no datatype in the Open Inference Protocol")
    return row
