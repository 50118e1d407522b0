"""What a request says beside its id and its raw contents: read and checked once for all requests that say the same."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensign import datatypes
from tensign._pb import open_inference_pb2 as pb
from tensign.errors import InvalidInput
from tensign.model import Model
from tensign.repository import Repository
from tensign.request import Enforced
from tensign.rpc.answers import requested_outputs
from tensign.rpc.regionfields import Span, input_spans, output_spans
from tensign.rpc.timings import wants_timings
from tensign.rpc.wire import KEPT, Received
from tensign.signature import MAX_RANK


@dataclass(frozen=True, slots=True)
class Layout:
    """A raw content that becomes an input of so many bytes, whatever they are."""

    name: str
    index: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Heading:
    """request: never to be changed; wanted: {output: classes, 0 for the numbers}; timeout_s: its own deadline, 0 where it has
    none; timed: whether it asks for times; taken: where in shared memory each input lies, () for none; placed: where outputs go
    there; layouts: of its inputs in the signature's order, None where each request is to be enforced by itself.
    """

    request: pb.ModelInferRequest
    model: Model
    wanted: Mapping[str, int]
    timeout_s: float
    timed: bool
    taken: tuple[Span | None, ...]
    placed: Mapping[str, Span]
    layouts: tuple[Layout, ...] | None

    @classmethod
    def of(cls, request: pb.ModelInferRequest, repository: Repository, *, again: bool = True) -> Heading:
        """again: whether other requests will say the same. Raises ModelNotFound, and InvalidInput for parameters and outputs;
        what else is wrong with inputs is left to who reads them.
        """
        model = repository.get(request.model_name, request.model_version)
        wanted = requested_outputs(request, [spec.name for spec in model.signature.outputs])
        timeout_s, timed = _timeout_s(request), wants_timings(request)
        layouts = _layouts(request, model) if again else None
        return cls(request, model, wanted, timeout_s, timed, input_spans(request), output_spans(request), layouts)

    @property
    def shared_bytes(self) -> int:
        """What is read from regions for each request; whether they exist is not asked."""
        return sum(span.size for span in self.taken if span)

    def arranged(self, raw: Sequence[Any]) -> Enforced | None:
        """The inputs as views of their contents; None where they want a closer look."""
        if self.layouts is None or len(raw) != len(self.layouts):
            return None
        arrays: dict[str, Any] = {}
        for layout in self.layouts:
            content = raw[layout.index]
            if not isinstance(content, bytes | memoryview) or len(content) != layout.size:
                return None
            arrays[layout.name] = np.ndarray(layout.shape, layout.dtype, content)
        return Enforced(arrays, {})


class Headings:
    """The newest of one repository. Of one event loop."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[bytes, Heading] = {}

    def of(self, message: Received) -> Heading:
        """Raises what Heading.of raises."""
        heading = self._known.get(message.heading)
        if heading is None:
            began = time.perf_counter_ns()
            heading = Heading.of(message.request, self._repository, again=bool(message.heading))
            message.took_ns += time.perf_counter_ns() - began
            if message.heading:
                if len(self._known) >= KEPT:
                    del self._known[next(iter(self._known))]
                self._known[message.heading] = heading
        return heading


def _layouts(request: pb.ModelInferRequest, model: Model) -> tuple[Layout, ...] | None:
    """Found by enforcing stand-ins of these names, dtypes and shapes: of tensors of numbers nothing else is ever checked."""
    if model.signature.columnar or model.signature.params or len(request.inputs) != len(model.signature.inputs):
        return None
    found: dict[str, Layout] = {}
    for index, tensor in enumerate(request.inputs):
        if len(tensor.shape) > MAX_RANK or min(tensor.shape, default=0) < 0 or tensor.HasField("contents"):
            return None
        try:
            dtype, shape = datatypes.of_protocol(tensor.datatype).numpy, tuple(tensor.shape)
        except InvalidInput:
            return None
        if dtype.kind in "Ob" or tensor.name in found:
            return None
        found[tensor.name] = Layout(tensor.name, index, dtype, shape, math.prod(shape) * dtype.itemsize)
    try:
        given = {name: np.broadcast_to(np.zeros((), each.dtype), each.shape) for name, each in found.items()}
        enforced = model.enforced(given)
    except (InvalidInput, ValueError):  # ValueError: longer axes than numpy has
        return None
    return tuple(found[name] for name in enforced) if all(enforced[name] is given[name] for name in enforced) else None


def _timeout_s(request: pb.ModelInferRequest) -> float:
    """Raises InvalidInput."""
    if "timeout" not in request.parameters:
        return 0.0
    asked = request.parameters["timeout"]
    if asked.WhichOneof("parameter_choice") != "int64_param" or asked.int64_param < 0:
        raise InvalidInput('parameter "timeout": wanted an int64 of microseconds, 0 or more')
    return asked.int64_param / 1e6
