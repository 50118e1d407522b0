"""Protocol messages <-> numpy arrays, both ways: the server decodes requests, the client decodes answers.

Byte lengths are checked against shape and itemsize before any view is made; nothing is copied that need not be.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign import datatypes
from tensign._pb import open_inference_pb2 as pb
from tensign.coltext import read_json, write_datetime, write_json
from tensign.coltypes import ObjectType
from tensign.devicememory import DeviceArray
from tensign.errors import InvalidInput
from tensign.signature import MAX_RANK, Arrays
from tensign.specs import ParamSpec
from tensign.values import is_missing

# Parameters of an answer that is one part of several: its first row, and, in Triton's word, whether it is the last part.
FIRST_ROW = "first_row"
FINAL = "triton_final_response"
SHA256 = "sha256"  # of an answer: the first letters of the digest of the model that gave it, as its metadata tell it
SHA256_LETTERS = 12

# A parameter of a request: bool true asks for the times of its stages, which come as int64 parameters of each of its answers.
# receive_us: reading and checking the request; decode_us: decoding and resizing pictures, and waiting to be; queue_us: from
# there until its first row was taken for a batch; input_us: gathering the batch; compute_us: the engine; output_us: taking
# the batch's answer apart and encoding this one, but for its last serialisation; batch_rows: rows in the batch; batch_bucket:
# rows that it was run as. Of an answer from several batches: sums, and rows and bucket of the largest.
TIMINGS = "timings"

# Parameters of a request that are the protocol's, here or in Triton, and never a model's.
WIRE_PARAMETERS = frozenset(
    "timeout priority sequence_id sequence_start sequence_end headers content_type classification binary_data_output"
    f" triton_enable_empty_final_response ensemble_response_type {FIRST_ROW} {FINAL} {TIMINGS}".split()
)

MAX_ID = 1024  # letters of a request's id, which comes back with its answer
_MAX_INPUTS = 4096
_MAX_ELEMENTS = 1 << 16  # of one BYTES tensor, which is a picture each; as objects they take many times their bytes

Tensor = pb.ModelInferRequest.InferInputTensor | pb.ModelInferResponse.InferOutputTensor


def decode_request(request: pb.ModelInferRequest, raw: Sequence[Any] | None = None) -> dict[str, npt.NDArray[Any]]:
    """{name: array} of a request, read-only views where it came raw. Raises InvalidInput.

    raw: what stands for its raw contents where some of them are elsewhere; a DeviceArray stays one.
    """
    return _decode("input", request.inputs, request.raw_input_contents if raw is None else raw)


def decode_response(response: pb.ModelInferResponse) -> dict[str, npt.NDArray[Any]]:
    """{name: array} of an answer. Raises InvalidInput where the server broke the protocol."""
    return _decode("output", response.outputs, response.raw_output_contents)


def encode_request(
    model: str, inputs: Arrays, *, version: str = "", request_id: str = "", classes: Mapping[str, int] | None = None
) -> pb.ModelInferRequest:
    """The request for {name: array}; `classes` asks for the top k labels of an output in place of its numbers."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name, array in inputs.items():
        datatype = datatypes.of_numpy(array.dtype)
        request.inputs.add(name=name, datatype=datatype.protocol, shape=array.shape)
        request.raw_input_contents.append(to_bytes(array))
    for name, count in (classes or {}).items():
        request.outputs.add(name=name).parameters["classification"].int64_param = count
    return request


def decode_params(request: pb.ModelInferRequest, specs: Iterable[ParamSpec]) -> dict[str, Any]:
    """{param: value} of the request's `parameters` that the signature declares, to be enforced; the rest is not for the model.

    Lists and objects travel as JSON in string_param, datetimes as ISO 8601. A parameter of the protocol itself, such as
    "timeout", is never the model's. Raises InvalidInput.
    """
    found: dict[str, Any] = {}
    for spec in specs:
        if spec.name not in request.parameters or spec.name in WIRE_PARAMETERS:
            continue
        choice = request.parameters[spec.name].WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidInput(f'param "{spec.name}": expected {spec}, got nothing')
        value = getattr(request.parameters[spec.name], choice)
        if choice == "string_param" and (spec.shape is not None or isinstance(spec.type, ObjectType)):
            try:
                value = read_json(value)
            except InvalidInput as error:
                raise InvalidInput(f'param "{spec.name}": {error}') from None
        found[spec.name] = value
    return found


def encode_param(value: Any) -> pb.InferParameter:
    """A param's value as it travels: what `decode_params` reads. Raises InvalidInput for what has no form on the wire."""
    if isinstance(value, np.generic):
        value = value.item()
    match value:
        case bool():
            return pb.InferParameter(bool_param=value)
        case int() if -(1 << 63) <= value < 1 << 64:
            return pb.InferParameter(int64_param=value) if value < 1 << 63 else pb.InferParameter(uint64_param=value)
        case float():
            return pb.InferParameter(double_param=value)
        case str():
            return pb.InferParameter(string_param=value)
        case date():
            return pb.InferParameter(string_param=value.isoformat())
        case list() | dict():
            return pb.InferParameter(string_param=write_json(value))
    raise InvalidInput(f"a param of {type(value).__name__} has no form on the wire")


def as_column(array: npt.NDArray[Any], *, compound: bool = False) -> npt.NDArray[Any]:
    """A column as BYTES where the protocol has no datatype of its own for it. Raises InvalidInput for what JSON cannot hold."""
    if array.dtype.kind == "M":
        return np.array([write_datetime(value).encode() for value in array.flat], object).reshape(array.shape)
    if array.dtype.kind != "O" or (not compound and all(isinstance(value, str | bytes) for value in array.flat)):
        return array
    result = np.empty(array.shape, object)
    try:
        for index, value in np.ndenumerate(array):
            plain = not compound and (isinstance(value, str | bytes) or is_missing(value))
            result[index] = (b"" if is_missing(value) else value) if plain else write_json(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"a value that JSON cannot hold: {str(error)[:200]}") from None
    return result


def _decode(kind: str, tensors: Sequence[Tensor], raw: Sequence[Any]) -> dict[str, npt.NDArray[Any]]:
    if raw and len(raw) != len(tensors):
        raise InvalidInput(f"raw_{kind}_contents: expected one for each of the {len(tensors)} {kind}s, got {len(raw)}")
    if len(tensors) > _MAX_INPUTS:
        raise InvalidInput(f"expected at most {_MAX_INPUTS} {kind}s, got {len(tensors)}")
    arrays: dict[str, npt.NDArray[Any]] = {}
    for index, tensor in enumerate(tensors):
        name = tensor.name
        if name in arrays:
            raise InvalidInput(f'{kind} "{name[:64]}" comes twice')
        if raw and tensor.HasField("contents"):
            raise InvalidInput(f'{kind} "{name[:64]}": has contents besides raw_{kind}_contents; send one of them')
        try:
            datatype = datatypes.of_protocol(tensor.datatype)
            if len(tensor.shape) > MAX_RANK:
                raise InvalidInput(f"{len(tensor.shape)} axes are more than the {MAX_RANK} that a tensor may have")
            shape = tuple(tensor.shape)
            if any(axis < 0 for axis in shape):
                raise InvalidInput(f"shape {_shown(shape)} has a negative axis")
            if datatype.numpy.kind == "O" and kind == "input" and math.prod(shape) > _MAX_ELEMENTS:
                raise InvalidInput(f"BYTES {_shown(shape)}: expected at most {_MAX_ELEMENTS} elements")
            arrays[name] = _from_raw(raw[index], datatype, shape) if raw else _from_typed(tensor.contents, datatype, shape)
        except (InvalidInput, ValueError) as error:  # ValueError: more axes, or longer ones, than numpy has
            raise InvalidInput(f'{kind} "{name[:64]}": {error}') from None
    return arrays


def _from_raw(raw: Any, datatype: datatypes.Datatype, shape: tuple[int, ...]) -> Any:
    if isinstance(raw, DeviceArray):
        return raw.viewed(datatype.numpy, shape)
    elements = math.prod(shape)  # Python's integers do not overflow
    if datatype.numpy.kind == "O":
        return _objects(_split_elements(raw, elements), elements, shape)
    wanted = elements * datatype.numpy.itemsize
    if len(raw) != wanted:
        raise InvalidInput(f"{datatype.protocol} {_shown(shape)} takes {_count(wanted)} bytes, got {len(raw)}")
    if datatype.protocol == "BOOL" and bytes(raw).strip(b"\0\1"):
        raise InvalidInput("BOOL: each byte is 0 or 1")
    return np.frombuffer(raw, datatype.numpy).reshape(shape)


def _from_typed(contents: pb.InferTensorContents, datatype: datatypes.Datatype, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if datatype.contents is None:
        raise InvalidInput(f"{datatype.protocol} has no typed contents; send it in raw_input_contents")
    values = getattr(contents, datatype.contents)
    elements = math.prod(shape)
    if len(values) != elements:
        raise InvalidInput(
            f"{datatype.protocol} {_shown(shape)} takes {_count(elements)} {datatype.contents}, got {len(values)}"
        )
    others = [field.name for field, _ in contents.ListFields() if field.name != datatype.contents]
    if others:
        raise InvalidInput(f"{datatype.protocol} travels in {datatype.contents}, got {others[0]} besides")
    if datatype.numpy.kind == "O":
        return _objects(list(values), elements, shape)
    if datatype.numpy.kind in "iu" and elements:  # numpy would wrap what does not fit
        limits: Any = np.iinfo(datatype.numpy.name)
        if min(values) < limits.min or max(values) > limits.max:
            at = next(at for at, value in enumerate(values) if not limits.min <= value <= limits.max)
            raise InvalidInput(f"element {at} does not fit {datatype.protocol}, which holds {limits.min} to {limits.max}")
    return np.array(values, datatype.numpy).reshape(shape)


def _split_elements(raw: bytes | memoryview, elements: int) -> list[bytes]:
    """BYTES on the wire: each element is its length, four bytes little-endian, then the bytes."""
    found: list[bytes] = []
    at = 0
    while at < len(raw) and len(found) <= elements:
        if at + 4 > len(raw):
            raise InvalidInput(f"BYTES: element {len(found)} ends inside its length")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4 + length
        if at > len(raw):
            raise InvalidInput(f"BYTES: element {len(found)} claims {length} bytes, {len(raw) - at + length} are left")
        found.append(bytes(raw[at - length : at]))
    return found


def _objects(values: list[bytes], elements: int, shape: tuple[int, ...]) -> npt.NDArray[np.object_]:
    if len(values) != elements:
        more = "more" if len(values) > elements else str(len(values))
        raise InvalidInput(f"BYTES {_shown(shape)} takes {_count(elements)} elements, got {more}")
    array = np.empty(elements, object)
    array[:] = values
    return array.reshape(shape)


def _shown(shape: tuple[int, ...]) -> str:
    return str(list(shape)) if len(shape) <= 8 else f"{str(list(shape[:8]))[:-1]}, ... {len(shape)} axes]"


def _count(number: int) -> str:
    return str(number) if number.bit_length() <= 128 else "more than 2^128"


def to_bytes(array: npt.NDArray[Any]) -> bytes:
    if array.dtype.kind not in "OSU":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    elements = [value.encode() if isinstance(value, str) else value for value in array.flat]
    wrong = [value for value in elements if not isinstance(value, bytes | bytearray | memoryview)]
    if wrong:
        raise InvalidInput(f"BYTES holds text or bytes, got {type(wrong[0]).__name__}")
    return b"".join(part for element in elements for part in (struct.pack("<I", len(element)), element))
