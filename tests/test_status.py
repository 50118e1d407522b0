"""Errors to gRPC status and back."""

from __future__ import annotations

import logging

import grpc
import pytest

from tensign import errors
from tensign.http import status as http_status
from tensign.rpc.status import INTERNAL_TEXT, error_of, status_of

# The table of the architecture's design, row by row, in gRPC's words.
TABLE: dict[type[errors.TensignError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SignatureMismatch: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UndecodableImage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.VersionNotFound: grpc.StatusCode.NOT_FOUND,
    errors.ModelNotReady: grpc.StatusCode.UNAVAILABLE,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UnsupportedModel: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ParityFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UntrustedModel: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotSignedIn: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotOffered: grpc.StatusCode.UNIMPLEMENTED,
    errors.ModelFailed: grpc.StatusCode.INTERNAL,
    errors.OutOfMemory: grpc.StatusCode.INTERNAL,
    errors.WorkerDied: grpc.StatusCode.UNAVAILABLE,
    errors.DeviceLost: grpc.StatusCode.UNAVAILABLE,
    errors.WrongContentType: grpc.StatusCode.UNIMPLEMENTED,
    errors.ProviderUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
}
# The same in HTTP's.
HTTP: dict[type[errors.TensignError], int] = {
    errors.InvalidInput: 400,
    errors.SignatureMismatch: 400,
    errors.UndecodableImage: 400,
    errors.ModelNotFound: 404,
    errors.VersionNotFound: 404,
    errors.ModelNotReady: 503,
    errors.QueueFull: 429,
    errors.TooLarge: 413,
    errors.DeadlineExceeded: 504,
    errors.UnsupportedModel: 409,
    errors.ParityFailed: 409,
    errors.UntrustedModel: 409,
    errors.ProviderUnavailable: 409,
    errors.NotSignedIn: 401,
    errors.NotAllowed: 403,
    errors.NotOffered: 501,
    errors.ModelFailed: 500,
    errors.OutOfMemory: 500,
    errors.WorkerDied: 503,
    errors.DeviceLost: 503,
    errors.WrongContentType: 415,
}
OURS = {errors.TensignError, errors.EngineError, errors.InvalidConfig}  # not the client's to know
ERRORS = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}


def test_every_error_is_in_one_of_the_two_tables() -> None:
    assert TABLE.keys() | OURS == ERRORS
    assert HTTP.keys() == TABLE.keys()


@pytest.mark.parametrize(("kind", "status"), HTTP.items())
def test_error_over_http(kind: type[errors.TensignError], status: int) -> None:
    told = http_status.status_of(kind("what was wrong"))
    assert (told[0], told[2]) == (status, "what was wrong")


@pytest.mark.parametrize("kind", [errors.EngineError, errors.TensignError, KeyError, OSError])
def test_anything_else_over_http_is_a_fixed_sentence(kind: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    assert http_status.status_of(kind("/secret/path")) == (500, "INTERNAL_ERROR", http_status.INTERNAL_TEXT)
    assert "secret" in caplog.text


@pytest.mark.parametrize(("kind", "code"), TABLE.items())
def test_error_is_told_with_its_code_and_its_text(kind: type[errors.TensignError], code: grpc.StatusCode) -> None:
    assert status_of(kind("what was wrong")) == (code, "what was wrong")


@pytest.mark.parametrize("kind", [*TABLE])
def test_error_of_the_clients_is_not_logged(kind: type[errors.TensignError], caplog: pytest.LogCaptureFixture) -> None:
    status_of(kind("what was wrong"))
    assert not caplog.records


def test_subclass_of_tomorrow_inherits_its_code() -> None:
    class Blurred(errors.UndecodableImage):
        pass

    assert status_of(Blurred("blurred"))[0] == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("kind", [errors.EngineError, errors.TensignError, KeyError, OSError, AssertionError, MemoryError])
def test_anything_else_is_logged_whole_and_told_as_a_fixed_sentence(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "tensign.rpc.status"):
        code, text = status_of(kind("/secret/path"))
    assert (code, text) == (grpc.StatusCode.INTERNAL, INTERNAL_TEXT)
    assert "secret" not in text
    assert "secret" in caplog.text


@pytest.mark.parametrize("kind", [*TABLE, errors.EngineError])
def test_the_way_back_gives_an_error_of_the_same_code(kind: type[errors.TensignError]) -> None:
    code, text = status_of(kind("what was wrong"))
    back = error_of(code, text, "host:9000")
    assert status_of(back)[0] == code
    assert text in str(back)


@pytest.mark.parametrize(
    "kind", [errors.InvalidInput, errors.ModelNotFound, errors.DeadlineExceeded, errors.QueueFull, errors.UnsupportedModel]
)
def test_the_way_back_gives_the_same_error(kind: type[errors.TensignError]) -> None:
    back = error_of(*status_of(kind("what was wrong")), "host:9000")
    assert type(back) is kind
    assert str(back) == "what was wrong"


@pytest.mark.parametrize(("text", "told"), [("draining", "host:9000: draining"), (None, "host:9000: no answer")])
def test_unavailable_names_the_address(text: str | None, told: str) -> None:
    back = error_of(grpc.StatusCode.UNAVAILABLE, text, "host:9000")
    assert isinstance(back, errors.ModelNotReady)
    assert str(back) == told


@pytest.mark.parametrize("code", [grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL])
@pytest.mark.parametrize("text", ["said by a proxy", "", None])
def test_code_that_stands_for_no_error_of_ours(code: grpc.StatusCode, text: str | None) -> None:
    back = error_of(code, text, "host:9000")
    assert type(back) is errors.TensignError
    assert str(back) == text or str(back) == code.name
