"""The one table from errors to gRPC status codes."""

from __future__ import annotations

import logging

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
}

_KINDS = {code.name: kind for kind, code in reversed(_CODES.items())}  # of two with one code, the first

STATUS = "status"  # the parameter of a stream's answer that says which status its error has
_NEVER_AGAIN = ("grpc-retry-pushback-ms", "-1")  # gRPC's own word for: trying this again is in vain


def trailer_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """What goes with the status of an error, beside code and text."""
    return (_NEVER_AGAIN,) if isinstance(error, errors.TooLarge) else ()


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Code and text for the client. What is not the client's to know is logged whole and told as a fixed sentence."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind], str(error)
    log.error("request failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, INTERNAL_TEXT


def error_of(error: grpc.RpcError, address: str) -> errors.TensignError:
    """The client's way back: the error that the status of a failed call stands for."""
    code, text = error.code(), error.details() or error.code().name
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):  # the server, or the way to it, is going away
        return errors.ModelNotReady(f"{address}: {text}")
    if _NEVER_AGAIN in [(key, value) for key, value in error.trailing_metadata() or ()]:
        return errors.TooLarge(text)
    return _KINDS.get(code.name, errors.TensignError)(text)


def error_of_answer(response: pb.ModelStreamInferResponse) -> errors.TensignError | None:
    """The same for one answer of a stream; None where it is no error."""
    if not response.error_message:
        return None
    return _KINDS.get(response.infer_response.parameters[STATUS].string_param, errors.TensignError)(response.error_message)
