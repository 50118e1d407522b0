"""The one table from errors to gRPC status codes."""

from __future__ import annotations

import logging

import grpc

from tensign import errors

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


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Code and text for the client. What is not the client's to know is logged whole and told as a fixed sentence."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind], str(error)
    log.error("request failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, INTERNAL_TEXT


def error_of(code: grpc.StatusCode, text: str | None, address: str) -> errors.TensignError:
    """The client's way back: the error that a status stands for."""
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):  # the server, or the way to it, is going away
        return errors.ModelNotReady(f"{address}: {text or 'no answer'}")
    kind = next((kind for kind, known in _CODES.items() if known == code), errors.TensignError)
    return kind(text or code.name)
