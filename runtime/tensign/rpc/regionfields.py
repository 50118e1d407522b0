"""Tensors of a request that lie in regions of shared memory: which bytes they are, and where answers go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensign._pb import open_inference_pb2 as pb
from tensign.errors import InvalidInput
from tensign.regions import Region, Regions
from tensign.rpc.wire import Received

REGION, SIZE, OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"

Parameters = Mapping[str, pb.InferParameter]


def raw_contents(message: Received, regions: Regions, limit: int) -> Sequence[Any]:
    """One raw content for each input: the message's, in their order, for those that name no region, for the others its bytes.

    Of a region on a device the bytes are a DeviceArray. limit: bytes of one request's regions. Raises InvalidInput.
    """
    request, raw = message.request, message.raw
    if not is_shared(request):
        return raw
    alone = sum(REGION not in tensor.parameters for tensor in request.inputs)
    if len(raw) != alone:
        raise InvalidInput(f"raw_input_contents: expected one for each of the {alone} inputs without a region, got {len(raw)}")
    spans = [_span(f'input "{t.name[:64]}"', t.parameters, regions) if REGION in t.parameters else None for t in request.inputs]
    if (total := sum(span.size for span in spans if span)) > limit:
        raise InvalidInput(f"inputs take {total} bytes of regions, {limit} are the most that one request may")
    sent = iter(raw)
    return [span.region.read(span.offset, span.size) if span else next(sent) for span in spans]


def shared_bytes(request: pb.ModelInferRequest, limit: int) -> int:
    """What reading its regions will cost, at most `limit`; whether they exist is not asked."""
    if not is_shared(request):
        return 0
    named = (t.parameters for t in request.inputs if REGION in t.parameters and SIZE in t.parameters)
    sizes = (parameters[SIZE].int64_param for parameters in named)
    return min(sum(size for size in sizes if size > 0), limit)


def targets(request: pb.ModelInferRequest, regions: Regions) -> dict[str, Target]:
    """{output: where it goes} of those that are to be written to a region. Raises InvalidInput."""
    found: dict[str, Target] = {}
    for output in request.outputs:
        if REGION in output.parameters:
            where = f'output "{output.name[:64]}"'
            if "classification" in output.parameters:
                raise InvalidInput(f"{where}: classification and {REGION}; ask for one of them")
            found[output.name] = Target(where, _span(where, output.parameters, regions))
    return found


class Target:
    """Where an output of one request goes: the parts of its answer behind each other."""

    def __init__(self, where: str, span: Span) -> None:
        self._where, self._span = where, span
        self._written = 0

    def put(self, tensor: pb.ModelInferResponse.InferOutputTensor, content: bytes) -> bytes:
        """Writes it, says so in the tensor, and gives what then stays to be sent. Raises InvalidInput."""
        span, wanted = self._span, self._written + len(content)
        if wanted > span.size:
            raise InvalidInput(f"{self._where} takes {wanted} bytes, {SIZE} is {span.size}")
        offset = span.offset + self._written
        span.region.write(offset, content)
        self._written = wanted
        tensor.parameters[REGION].string_param = span.region.name
        tensor.parameters[SIZE].int64_param = len(content)
        if offset:
            tensor.parameters[OFFSET].int64_param = offset
        return b""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a region."""

    region: Region
    offset: int
    size: int


def is_shared(request: pb.ModelInferRequest) -> bool:
    """Whether any input lies in a region."""
    return any(REGION in tensor.parameters for tensor in request.inputs)


def is_placed(request: pb.ModelInferRequest) -> bool:
    """Whether any output goes to one."""
    return any(REGION in output.parameters for output in request.outputs)


def _span(where: str, parameters: Parameters, regions: Regions) -> Span:
    if parameters[REGION].WhichOneof("parameter_choice") != "string_param":
        raise InvalidInput(f"{where}: {REGION}: wanted the name of a region, a string_param")
    try:
        region = regions[parameters[REGION].string_param]
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None
    if SIZE not in parameters:
        raise InvalidInput(f"{where}: {SIZE} is missing")
    size, offset = _bytes(where, parameters, SIZE), _bytes(where, parameters, OFFSET) if OFFSET in parameters else 0
    if offset + size > region.byte_size:
        raise InvalidInput(
            f'{where}: {size} bytes from {offset} on end behind region "{region.name}", which has {region.byte_size}'
        )
    return Span(region, offset, size)


def _bytes(where: str, parameters: Parameters, key: str) -> int:
    parameter = parameters[key]
    if parameter.WhichOneof("parameter_choice") != "int64_param" or parameter.int64_param < 0:
        raise InvalidInput(f"{where}: {key}: wanted an int64 of bytes, 0 or more")
    return parameter.int64_param
