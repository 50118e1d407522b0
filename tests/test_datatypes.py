"""One table: protocol <-> numpy <-> MLflow."""

from __future__ import annotations

import numpy as np
import pytest

from tensign._pb import open_inference_pb2 as pb
from tensign.datatypes import TABLE, Datatype, of_numpy, of_protocol
from tensign.errors import InvalidInput

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.protocol)


@ROWS
def test_row_is_found_by_each_of_its_names(row: Datatype) -> None:
    assert of_protocol(row.protocol) is row
    assert of_numpy(row.numpy) is row


@ROWS
def test_big_endian_numbers_are_the_same_datatype(row: Datatype) -> None:
    assert of_numpy(row.numpy.newbyteorder(">")) is row


@ROWS
def test_contents_is_a_field_of_the_protocol(row: Datatype) -> None:
    assert row.contents is None or row.contents in pb.InferTensorContents.DESCRIPTOR.fields_by_name


def test_wire_numbers_are_little_endian() -> None:
    assert [row.numpy.newbyteorder("<") for row in TABLE] == [row.numpy for row in TABLE]


@pytest.mark.parametrize("dtype", ["S", "S1", "S300", "U", "U1", "U300", "O"])
def test_text_and_bytes_of_any_size_are_bytes(dtype: str) -> None:
    assert of_numpy(np.dtype(dtype)).protocol == "BYTES"


@pytest.mark.parametrize("name", ["", "uint8", "FLOAT", "BF16", "FP8"])
def test_unknown_protocol_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidInput, match=f'datatype "{name}" is unknown; wanted one of BOOL, UINT8'):
        of_protocol(name)


def test_long_protocol_name_is_not_echoed_whole() -> None:
    with pytest.raises(InvalidInput) as caught:
        of_protocol("X" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "datetime64[s]", "V8", "f4,i4"])
def test_dtype_without_a_datatype_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidInput, match="has no datatype in the Open Inference Protocol"):
        of_numpy(np.dtype(dtype))
