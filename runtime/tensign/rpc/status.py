"""The one table from errors to gRPC status codes."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import grpc

from tensign import errors
from tensign._pb import open_inference_pb2 as pb

log = logging.getLogger(__name__)

INTERNAL_TEXT = "internal error; the server's log has the details"

_CODES: dict[type[errors.TensignError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.ModelNotReady: grpc.StatusCode.UNAVAILABLE,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UnsupportedModel: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UntrustedModel: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ProviderUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelFailed: grpc.StatusCode.INTERNAL,
    errors.OutOfMemory: grpc.StatusCode.INTERNAL,
    errors.NotSignedIn: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotOffered: grpc.StatusCode.UNIMPLEMENTED,
}

# Of two with one status, the first; INTERNAL alone tells nothing.
_BY_STATUS = {code.name: kind for kind, code in reversed(_CODES.items()) if code is not grpc.StatusCode.INTERNAL}
_BY_NAME = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}

# How an error says its name beside its status: in the trailer of a call, in the parameters of a stream's answer.
TRAILER = "tensign-error"
ERROR, STATUS = "error", "status"

_NEVER_AGAIN = ("grpc-retry-pushback-ms", "-1")  # gRPC's own word for: trying this again is in vain


def trailer_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """What goes with the status of an error, beside code and text."""
    if not isinstance(error, errors.TensignError):
        return ()
    name = (TRAILER, type(error).__name__)
    return (name, _NEVER_AGAIN) if isinstance(error, errors.TooLarge | errors.WorkerDied | errors.DeviceLost) else (name,)


def failed_answer(error: Exception) -> pb.ModelStreamInferResponse:
    """The answer of a stream that is an error."""
    code, text = status_of(error)
    answer = pb.ModelStreamInferResponse(error_message=text)
    answer.infer_response.parameters[STATUS].string_param = code.name
    if isinstance(error, errors.TensignError):
        answer.infer_response.parameters[ERROR].string_param = type(error).__name__
    return answer


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Code and text for the client. What is not the client's to know is logged whole and told as a fixed sentence."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind], str(error)
    log.error("request failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, INTERNAL_TEXT


def error_of(
    code: grpc.StatusCode, text: str | None, address: str, trailer: Iterable[tuple[str, str | bytes]] = ()
) -> errors.TensignError:
    """The client's way back: the error that a status stands for, or that the trailer names."""
    name = next((str(value) for key, value in trailer if key == TRAILER), "")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):  # the server, or the way to it, is going away
        kind = errors.WorkerDied if name == errors.WorkerDied.__name__ else errors.ModelNotReady
        return kind(f"{address}: {text or 'no answer'}")
    return _kind(name, code.name)(text or code.name)


def error_of_answer(response: pb.ModelStreamInferResponse) -> errors.TensignError | None:
    """The same for one answer of a stream; None where it is no error."""
    if not response.error_message:
        return None
    said = response.infer_response.parameters
    return _kind(said[ERROR].string_param, said[STATUS].string_param)(response.error_message)


def _kind(name: str, status: str) -> type[errors.TensignError]:
    return _BY_NAME.get(name) or _BY_STATUS.get(status, errors.TensignError)
