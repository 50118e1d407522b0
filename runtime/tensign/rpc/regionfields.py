"""Tensors of a request that lie in regions of shared memory: which bytes they are, and where answers go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensign._pb import open_inference_pb2 as pb
from tensign.errors import InvalidInput
from tensign.regions import Region, Regions

REGION, SIZE, OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"

Parameters = Mapping[str, pb.InferParameter]


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a region, as a request names it; where: whose they are, for messages."""

    where: str
    name: str
    offset: int
    size: int

    def region(self, regions: Regions) -> Region:
        """What is registered under that name now. Raises InvalidInput, also where the span ends behind it."""
        try:
            region = regions[self.name]
        except InvalidInput as error:
            raise InvalidInput(f"{self.where}: {error}") from None
        if self.offset + self.size > region.byte_size:
            raise InvalidInput(
                f'{self.where}: {self.size} bytes from {self.offset} on end behind region "{region.name}", which has'
                f" {region.byte_size}"
            )
        return region


def input_spans(request: pb.ModelInferRequest) -> tuple[Span | None, ...]:
    """Of each input, None where it lies in none; () where none does. Raises InvalidInput."""
    spans = tuple(
        _span(f'input "{tensor.name[:64]}"', tensor.parameters) if REGION in tensor.parameters else None
        for tensor in request.inputs
    )
    return spans if any(spans) else ()


def output_spans(request: pb.ModelInferRequest) -> dict[str, Span]:
    """{output: where it goes} of those that are to be written to a region. Raises InvalidInput."""
    found: dict[str, Span] = {}
    for output in request.outputs:
        if REGION in output.parameters:
            where = f'output "{output.name[:64]}"'
            if "classification" in output.parameters:
                raise InvalidInput(f"{where}: classification and {REGION}; ask for one of them")
            found[output.name] = _span(where, output.parameters)
    return found


def raw_contents(raw: Sequence[Any], spans: Sequence[Span | None], regions: Regions, limit: int) -> Sequence[Any]:
    """One raw content for each input: the message's, in their order, for those that name no region, for the others its bytes.

    Of a region on a device the bytes are a DeviceArray. limit: bytes of one request's regions. Raises InvalidInput.
    """
    if not spans:
        return raw
    alone = spans.count(None)
    if len(raw) != alone:
        raise InvalidInput(f"raw_input_contents: expected one for each of the {alone} inputs without a region, got {len(raw)}")
    found = [(span, span.region(regions)) if span else None for span in spans]
    if (total := sum(span.size for span in spans if span)) > limit:
        raise InvalidInput(f"inputs take {total} bytes of regions, {limit} are the most that one request may")
    sent = iter(raw)
    return [each[1].read(each[0].offset, each[0].size) if each else next(sent) for each in found]


class Target:
    """Where an output of one request goes: the parts of its answer behind each other."""

    def __init__(self, span: Span, regions: Regions) -> None:
        """Raises InvalidInput."""
        self._span, self._region = span, span.region(regions)
        self._written = 0

    def put(self, tensor: pb.ModelInferResponse.InferOutputTensor, content: bytes) -> bytes:
        """Writes it, says so in the tensor, and gives what then stays to be sent. Raises InvalidInput."""
        span, wanted = self._span, self._written + len(content)
        if wanted > span.size:
            raise InvalidInput(f"{span.where} takes {wanted} bytes, {SIZE} is {span.size}")
        offset = span.offset + self._written
        self._region.write(offset, content)
        self._written = wanted
        tensor.parameters[REGION].string_param = span.name
        tensor.parameters[SIZE].int64_param = len(content)
        if offset:
            tensor.parameters[OFFSET].int64_param = offset
        return b""


def _span(where: str, parameters: Parameters) -> Span:
    if parameters[REGION].WhichOneof("parameter_choice") != "string_param":
        raise InvalidInput(f"{where}: {REGION}: wanted the name of a region, a string_param")
    if SIZE not in parameters:
        raise InvalidInput(f"{where}: {SIZE} is missing")
    size, offset = _bytes(where, parameters, SIZE), _bytes(where, parameters, OFFSET) if OFFSET in parameters else 0
    return Span(where, parameters[REGION].string_param, offset, size)


def _bytes(where: str, parameters: Parameters, key: str) -> int:
    parameter = parameters[key]
    if parameter.WhichOneof("parameter_choice") != "int64_param" or parameter.int64_param < 0:
        raise InvalidInput(f"{where}: {key}: wanted an int64 of bytes, 0 or more")
    return parameter.int64_param
