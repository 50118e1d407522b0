"""Every error tensign raises on purpose; whoever catches TensignError has caught them all.

    TensignError
        InvalidInput            the caller's data is wrong; the message names the tensor, what was wanted, what came
            SignatureMismatch       name, dtype, rank or shape against the signature
            UndecodableImage        bytes that are no picture we can, or will, decode
        ModelNotFound           no model of that name, no MLmodel at that path
            VersionNotFound         the model is there, that version is not
        ModelNotReady           not warmed up yet, or draining
            WorkerDied              its process ended in the middle of a batch, and is being started again
            DeviceLost              the GPU fell away in the middle of a batch, and is not used any more
        QueueFull               more rows are waiting than the queue may hold; try again later
        TooLarge                a request that no queue could ever hold
        DeadlineExceeded        the deadline passed before there was an answer
        UnsupportedModel        an MLmodel we cannot serve or convert; the message says why
            ParityFailed            converted, but the predictions changed beyond the tolerance
        InvalidConfig           a knob outside its range
        UntrustedModel          loading would run code from the model's files, and nobody said --trust
        ProviderUnavailable     the execution provider asked for cannot run here
        EngineError             the model failed on input that its signature allows
            ModelFailed             its own code raised, or answered what the signature does not promise
            OutOfMemory             the device has no memory for a batch of so many rows
        NotSignedIn             no token or certificate, or none that is known
        NotAllowed              known, but not for this
        NotOffered              the server does not do what was asked for
            WrongContentType        a body of a type, or in a charset, that is not read here

Knows nothing of gRPC or HTTP: `rpc/status.py` and `http/status.py` hold the tables that map these to a wire.
"""

from __future__ import annotations

MAX_TEXT = 1000  # bytes of a text that anybody is shown: a status travels in a trailer, and a long one reaches nobody


class TensignError(Exception):
    """Base of all; its text may be shown to a client: one printable line of at most MAX_TEXT bytes, which echoes no payload."""

    def __str__(self) -> str:
        text = super().__str__()
        if not text.isprintable():
            text = "".join(letter if letter.isprintable() else " " for letter in text)
        encoded = text.encode()
        return text if len(encoded) <= MAX_TEXT else encoded[: MAX_TEXT - 3].decode(errors="ignore") + "..."


class InvalidInput(TensignError):
    """The caller's data is wrong. Sending it again changes nothing."""


class SignatureMismatch(InvalidInput):
    """Names, dtypes or shapes differ from the model's signature."""


class UndecodableImage(InvalidInput):
    """Bytes that are not a picture in a format we decode, or a picture beyond the pixel limit."""


class ModelNotFound(TensignError):
    """No model of that name is served, or no MLmodel lies at that path."""


class VersionNotFound(ModelNotFound):
    """The model is served, but not in that version."""


class ModelNotReady(TensignError):
    """The model is not warmed up yet, or the server is draining. Trying again elsewhere is safe."""


class WorkerDied(ModelNotReady):
    """The process that ran the model ended, or said what no worker says, in the middle of a batch.

    It is being started again; whether the same request may be sent again its sender knows: it may be what ended the process.
    """


class DeviceLost(ModelNotReady):
    """The GPU that ran the batch is gone, or in a state that only a new process gets it out of.

    Whether the same request may be sent again its sender knows: it may be what did it.
    """


class QueueFull(TensignError):
    """Too many rows are waiting already. Trying again later is safe: nothing was computed."""


class TooLarge(TensignError):
    """One request has more rows than the queue could ever hold."""


class DeadlineExceeded(TensignError):
    """The deadline passed before there was an answer."""


class UnsupportedModel(TensignError):
    """An MLmodel directory that this version cannot serve or convert."""


class ParityFailed(UnsupportedModel):
    """The converted model's predictions differ from the original's by more than the tolerance."""


class InvalidConfig(TensignError):
    """A knob outside its range; raised at start, never while serving."""


class UntrustedModel(TensignError):
    """Loading this model would run code from its files; the operator has not allowed it."""


class ProviderUnavailable(TensignError):
    """The execution provider that was asked for cannot run on this machine."""


class EngineError(TensignError):
    """The model failed on input that its signature allows: its fault or ours, never the caller's."""


class ModelFailed(EngineError):
    """The model's own code raised, or answered what its signature does not promise; a client is told so, without values."""


class OutOfMemory(EngineError):
    """The device has no memory for a batch of so many rows; a smaller one may still fit."""


class NotSignedIn(TensignError):
    """Whoever guards the server wants a token or a certificate, or another one."""


class NotAllowed(TensignError):
    """Whoever guards the server knows the caller, and refuses this."""


class NotOffered(TensignError):
    """The server has no such RPC, or does not do what was asked for."""


class WrongContentType(NotOffered):
    """A body of a type, or in a charset, that is not read here."""
