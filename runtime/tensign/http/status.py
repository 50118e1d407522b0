"""The one table from errors to HTTP statuses, with MLflow's word for each."""

from __future__ import annotations

import logging

from tensign import errors

log = logging.getLogger(__name__)

INTERNAL_TEXT = "internal error; the server's log has the details"
CLIENT_GONE = 499  # nobody hears it: the connection is gone

# MLflow's words are those of mlflow.protos.databricks_pb2.ErrorCode, which its clients read.
_STATUSES: dict[type[errors.TensignError], tuple[int, str]] = {
    errors.InvalidInput: (400, "BAD_REQUEST"),
    errors.SignatureMismatch: (400, "INVALID_PARAMETER_VALUE"),
    errors.ModelNotFound: (404, "RESOURCE_DOES_NOT_EXIST"),
    errors.ModelNotReady: (503, "TEMPORARILY_UNAVAILABLE"),
    errors.QueueFull: (429, "RESOURCE_EXHAUSTED"),
    errors.TooLarge: (413, "BAD_REQUEST"),
    errors.DeadlineExceeded: (504, "DEADLINE_EXCEEDED"),
    errors.UnsupportedModel: (409, "RESOURCE_CONFLICT"),
    errors.UntrustedModel: (409, "RESOURCE_CONFLICT"),
    errors.ProviderUnavailable: (409, "RESOURCE_CONFLICT"),
    errors.ModelFailed: (500, "INTERNAL_ERROR"),
    errors.OutOfMemory: (500, "INTERNAL_ERROR"),
    errors.NotSignedIn: (401, "UNAUTHENTICATED"),
    errors.NotAllowed: (403, "PERMISSION_DENIED"),
    errors.NotOffered: (501, "NOT_IMPLEMENTED"),
    errors.WrongContentType: (415, "BAD_REQUEST"),
}


def status_of(error: Exception) -> tuple[int, str, str]:
    """Status, MLflow's word and text for the client. What is not the client's to know is logged whole, told as one sentence."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return *_STATUSES[kind], str(error)
    if isinstance(error, MemoryError):
        log.error("no memory for a request", exc_info=error)
        return *_STATUSES[errors.TooLarge], "there is no memory for this request; send fewer rows at once"
    log.error("request failed", exc_info=error)
    return 500, "INTERNAL_ERROR", INTERNAL_TEXT
