"""The client of ordinary programs: AsyncClient, its event loop in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

from tensign._pb import open_inference_pb2 as pb
from tensign.client.aio import CLOSED, WINDOW, AsyncClient
from tensign.client.answer import Answer
from tensign.client.connection import MAX_RETRIES
from tensign.client.messages import Input, Picture
from tensign.client.metadata import ModelMetadata, ServerMetadata
from tensign.errors import TensignError
from tensign.request import Outputs

T = TypeVar("T")

_END_S = 10.0  # for what is under way to notice that it ends


class Client:
    """One connection to one server, for any number of threads; `model` may stay empty where the server offers one.

    timeout_s: the deadline of every request, in seconds. retries: how often what the server did not take up is tried again.
    tls: True trusts the system's authorities, a path names a PEM file of others; certificate: our own (certificate, key).
    token: sent as `authorization: Bearer ...`; a function is asked anew for every call. Every call raises tensign.errors
    as the server meant them, ModelNotReady where none answers.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "",
        version: str = "",
        timeout_s: float = 60.0,
        retries: int = MAX_RETRIES,
        tls: bool | str | Path = False,
        certificate: tuple[str | Path, str | Path] | None = None,
        token: str | Callable[[], str] | None = None,
    ) -> None:
        """Raises InvalidConfig; connects when it is used."""
        self._client = AsyncClient(
            address,
            model=model,
            version=version,
            timeout_s=timeout_s,
            retries=retries,
            tls=tls,
            certificate=certificate,
            token=token,
        )
        self.address = self._client.address
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="tensign-client", daemon=True)
        thread.start()
        self._process = os.getpid()
        self._end = weakref.finalize(self, _end, self._client, self._loop, thread, self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is under way and gives the connection back."""
        self._end()

    def ready(self, *, timeout_s: float | None = None) -> bool:
        """True where the server has warmed its models up and is not draining; False also where none answers."""
        return self._run(self._client.ready(timeout_s=timeout_s))

    def server(self) -> ServerMetadata:
        """Name, version and extensions of the server."""
        return self._run(self._client.server())

    def metadata(self) -> ModelMetadata:
        """The model's contract; asked for once."""
        return self._run(self._client.metadata())

    def model(self) -> str:
        """The model's name. Raises ModelNotFound where none was given and the server offers several."""
        return self._run(self._client.model())

    def statistics(self) -> list[pb.ModelStatistics]:
        """Counts and times of every served model since it was loaded."""
        return self._run(self._client.statistics())

    def infer(self, inputs: Any, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None) -> Outputs:
        """{input: [n,...]} -> {output: [n,...]}; one array is enough where the model has one input.

        A model of columns takes a pandas DataFrame and a list of records as well; params: those that its signature declares.
        More than one request may hold is sent as several, and joined again.
        """
        return self._run(self._client.infer(inputs, params, timeout_s=timeout_s))

    @overload
    def predict(self, images: Picture, *, top: int = 5, timeout_s: float | None = None) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Iterable[Picture], *, top: int = 5, timeout_s: float | None = None) -> list[Answer]: ...
    def predict(
        self, images: Picture | Iterable[Picture], *, top: int = 5, timeout_s: float | None = None
    ) -> Answer | list[Answer]:
        """One picture -> its Answer, several -> theirs, in order. Raises the first error; `stream` gives each its own.

        A picture is a path, encoded bytes, uint8 [H,W], [H,W,3] or [H,W,4], or Pillow's; uint8 [n,H,W,3] is several.
        """
        return self._run(self._client.predict(images, top=top, timeout_s=timeout_s))

    def stream(
        self, images: Iterable[Input], *, top: int = 5, window: int = WINDOW, timeout_s: float | None = None
    ) -> Iterator[Answer]:
        """Streams pictures, or mappings {input: [n,...]}, and yields their answers in order.

        Lazy at both ends: at most `window` are on their way, and as many wait to be taken. A picture that fails, or a file
        that cannot be read, yields an Answer with its error; the stream goes on.
        """
        return self._iterate(self._client.stream(images, top=top, window=window, timeout_s=timeout_s), window)

    def send(self, message: bytes, *, timeout_s: float | None = None) -> pb.ModelInferResponse:
        """One serialized ModelInferRequest, one answer."""
        return self._run(self._client.send(message, timeout_s=timeout_s))

    def send_stream(
        self, messages: Iterable[bytes], *, window: int = WINDOW, timeout_s: float | None = None
    ) -> Iterator[pb.ModelStreamInferResponse]:
        """Serialized requests over one stream; the answers in order, each in as many parts as the server gave it."""
        return self._iterate(self._client.send_stream(messages, window=window, timeout_s=timeout_s), window)

    def request(self, value: Input) -> bytes:
        """The serialized request that `stream` would send for one picture or mapping."""
        return self._run(self._client.request(value))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._usable:
            work.close()
            raise TensignError(CLOSED)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise TensignError(CLOSED) from None  # by whoever closed it
        except BaseException:  # Ctrl-C, above all
            future.cancel()
            raise

    @property
    def _usable(self) -> bool:
        return self._end.alive and os.getpid() == self._process  # threads do not follow into a fork

    def _iterate(self, answers: AsyncGenerator[T, None], ahead: int) -> Iterator[T]:
        """An asynchronous generator as an ordinary one, which may run `ahead` of whoever takes from it."""
        if not self._usable:
            raise TensignError(CLOSED)
        passage: _Passage[T] = _Passage(ahead, self._loop)
        pump = asyncio.run_coroutine_threadsafe(passage.pump(answers), self._loop)
        try:
            while not isinstance(value := passage.take(), _End):
                yield value
            if isinstance(value.error, asyncio.CancelledError):
                raise TensignError(CLOSED)
            if value.error is not None:
                raise value.error
        finally:
            pump.cancel()


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class _Passage(Generic[T]):
    """Values on their way from an event loop to a thread, `ahead` of it at most."""

    def __init__(self, ahead: int, loop: asyncio.AbstractEventLoop) -> None:
        self._ahead, self._loop = ahead, loop
        self._values: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        self._full = False
        self._emptied = asyncio.Event()

    async def pump(self, answers: AsyncGenerator[T, None]) -> None:
        """Runs on the loop, until `answers` ends or it is cancelled."""
        error: BaseException | None = None
        try:
            async with aclosing(answers):
                async for answer in answers:
                    self._values.put(answer)
                    self._emptied.clear()
                    self._full = True
                    while self._values.qsize() >= self._ahead:
                        await self._emptied.wait()
                        self._emptied.clear()
                    self._full = False
        except BaseException as raised:
            error = raised
        self._values.put(_End(error))

    def take(self) -> T | _End:
        """Runs on the thread, and waits for what is next."""
        value = self._values.get()
        if self._full and self._values.qsize() <= self._ahead // 2:
            with contextlib.suppress(RuntimeError):  # closed meanwhile: the end is in the queue already
                self._loop.call_soon_threadsafe(self._emptied.set)  # once for half a window, since waking a loop costs
        return value


def _end(client: AsyncClient, loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    """Ends everything that runs on the loop, then the loop. A forked process has the loop, but not its thread."""

    async def shutdown() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
        await loop.shutdown_asyncgens()

    if os.getpid() != process or not thread.is_alive():
        return
    ended = asyncio.run_coroutine_threadsafe(shutdown(), loop)
    if threading.current_thread() is thread:  # the last reference went away there: it cannot wait for itself
        ended.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
        return
    with contextlib.suppress(TimeoutError):
        ended.result(_END_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
