"""Starts the front ends, starts those again that end, and drains them all."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import Any

from tensign.admission import Admission, Counts
from tensign.config import ServerConfig
from tensign.engines.process import memory
from tensign.frontends.description import description, state
from tensign.frontends.link import Link
from tensign.frontends.reception import Reception
from tensign.repository import Repository
from tensign.rpc.server import check_free

log = logging.getLogger(__name__)

_START_S = 60.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0  # before another is started, twice as long each time that one ends at once
_LIVED_S = 10.0
_WATCH_S = 0.1  # between looks at what of the models may change
_LAST_S = 2.0  # for a front end to end once it has drained


class FrontEnds:
    """In place of a GrpcServer. `port` is the one that they share, once started."""

    def __init__(self, repository: Repository, config: ServerConfig, admission: Admission) -> None:
        """admission: learns what the front ends have on their way."""
        self._models, self._config = list(repository), config
        admission.beside = self._counts
        self._reserved: socket.socket | None = None
        self._keepers: list[Keeper] = []
        self._watching: asyncio.Task[None] | None = None
        self._until = 0.0
        self.port = 0

    @property
    def pids(self) -> list[int | None]:
        """Of the processes, None for one that is being started."""
        return [keeper.pid for keeper in self._keepers]

    async def start(self) -> None:
        """Raises OSError when the port is taken, the host is not one of this machine, or a front end does not start."""
        check_free(self._config)
        self._reserved = _reserved(self._config)
        self.port = self._reserved.getsockname()[1]
        number = self._config.front_ends
        config = replace(
            self._config,
            grpc_port=self.port,
            http_port=None,
            front_ends=0,
            max_inflight_bytes=max(self._config.max_inflight_bytes // number, 1),
        )
        self._keepers = [Keeper(self._models, config, number) for _ in range(number)]
        try:
            async with asyncio.timeout(_START_S):
                await asyncio.gather(*(asyncio.wrap_future(keeper.listening) for keeper in self._keepers))
        except OSError:  # a timeout among them
            await self.stop()
            raise
        self._watching = asyncio.create_task(self._watch())

    async def drain(self) -> None:
        """Has each say not ready, read no further requests, answer what it has and end."""
        self._until = time.monotonic() + self._config.drain_s + _LAST_S
        for keeper in self._keepers:
            keeper.drain()

    async def stop(self) -> None:
        """Waits until all have ended, and ends those that do not in time."""
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.to_thread(self._end)

    def _counts(self) -> Counts:
        active, held, kept = zip((0, 0, 0), *(keeper.counts for keeper in self._keepers), strict=True)
        return sum(active), sum(held), sum(kept)

    def _end(self) -> None:
        for keeper in self._keepers:
            keeper.end(self._until)
        if self._reserved is not None:
            self._reserved.close()

    async def _watch(self) -> None:
        told: list[dict[str, Any]] = []
        while True:
            states = [state(model) for model in self._models]
            if states != told:
                for keeper in self._keepers:
                    keeper.tell({"do": "states", "states": states})
                told = states
            await asyncio.sleep(_WATCH_S)


class Keeper:
    """One front end after the other, and the thread that reads what it sends.

    The thread lives as long as any of them: the kernel ends a process whose starting *thread* has ended, as it is asked to.
    listening: done once the first one listens, or OSError; counts: what it has on its way, as it told last.
    """

    def __init__(self, models: list[Any], config: ServerConfig, front_ends: int) -> None:
        self._models, self._config, self._front_ends = models, config, front_ends
        self.listening: Future[None] = Future()
        self.counts: Counts = (0, 0, 0)
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._keep, name="tensign-front-end", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process else None

    def tell(self, said: dict[str, Any]) -> None:
        """Nothing where there is none just now: the next one is told all there is."""
        if (link := self._link) is not None:
            link.send(said)

    def drain(self) -> None:
        """No other is started any more."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self.tell({"do": "drain"})

    def end(self, until: float) -> None:
        """Waits for its end, as long as that."""
        self.drain()
        self._thread.join(max(until - time.monotonic(), 0))
        if (process := self._process) is not None:
            log.warning("the front end %d did not end in time", process.pid)
            process.kill()
        self._thread.join()

    def _keep(self) -> None:
        pause = _PAUSE_S
        while not self._ending:
            began = time.monotonic()
            try:
                failure = self._run()
            except Exception as error:  # no descriptors left, say
                log.exception("a front end does not start")
                failure = f"a front end does not start: {type(error).__name__}"
            if not self.listening.done():  # the first one, whose failure the server's is
                self.listening.set_exception(OSError(failure))
                return
            if self._ending:
                return
            log.warning("%s; starting another", failure)
            pause = _PAUSE_S if time.monotonic() - began > _LIVED_S else min(2 * pause, _LONGEST_PAUSE_S)
            with self._changed:
                self._changed.wait_for(lambda: self._ending, pause)

    def _run(self) -> str:
        """One process from its start to its end; says how it ended."""
        failures: list[str] = []

        def heard(said: dict[str, Any]) -> None:
            if "failed" in said:
                failures.append(str(said["failed"])[:500])
            elif "counts" in said:
                active, held, kept = map(int, said["counts"])
                self.counts = active, held, kept
            elif not self.listening.done():
                self.listening.set_result(None)

        ours, its = socket.socketpair()
        there, back = memory("tensign-to-front-end"), memory("tensign-from-front-end")
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tensign.frontends.process", *map(str, (its.fileno(), back, there))],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(its.fileno(), there, back),
                process_group=0,  # a Ctrl-C is for the server, which then drains this one
            )
        except OSError as error:
            ours.close()
            os.close(there)
            os.close(back)
            return f"a front end does not start: {error.strerror}"
        finally:
            its.close()
        link = Link(ours, there, back)
        with self._changed:
            self._process = process
        models = [description(model) for model in self._models]
        link.send({"config": asdict(self._config), "front_ends": self._front_ends, "models": models})
        self._link = link
        if self._ending:
            link.send({"do": "drain"})
        try:
            Reception(link, self._models, heard).serve()
        except Exception:
            log.exception("what a front end sent could not be read")
        self._link, self.counts = None, (0, 0, 0)
        try:
            status = process.wait(_LAST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        link.close()
        with self._changed:
            self._process = None
        return failures[0] if failures else f"the front end {process.pid} ended with status {status}"


def _reserved(config: ServerConfig) -> socket.socket:
    """Keeps the port, a free one where that is 0, for whoever shares it; it does not listen."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        config.host, config.grpc_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    reserved = socket.socket(family, kind, protocol)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError:
        reserved.close()
        raise
    return reserved
