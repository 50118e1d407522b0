"""The same book for the batcher alone: 32 threads put their rows straight into it, switching 500 times as often as usual."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from tensign.batcher import Batcher
from tensign.buckets import Buckets, powers_of_two
from tensign.errors import DeadlineExceeded, QueueFull
from tensign.lane import Place
from tensign.metrics import Statistics
from tensign.request import Outputs
from tensign.signature import Arrays

from .identity import WIDTHS, answer_to
from .ledger import CANCELLED, EXPIRED, FAILED, LOST, REFUSED, Entry, Ledger

LARGEST, QUEUE = 16, 256  # rows; both small, so that most requests share or split batches and the queue is often full
CLIENTS = 3  # of whom each has many threads
LANES = 2  # batches of them at once, as on a GPU
PATIENCE_S = 30.0  # who has no answer by then has lost it
SWITCH_S = 1e-5  # the interpreter's default of 5 ms lets most races pass by


def run(seed: int, rows: int, *, threads: int = 32, batcher: type[Batcher] = Batcher, patience_s: float = PATIENCE_S) -> Ledger:
    """Until `rows` rows have been answered right, or something is wrong. What the batcher keeps afterwards is a fault."""
    sizes = powers_of_two(LARGEST)
    buckets = Buckets(sizes, tuple(1e-5 * size for size in sizes))
    under_soak = batcher([Place(_engine, lanes=LANES)], buckets, max_queue_rows=QUEUE, statistics=Statistics())
    book = Ledger(work=0)
    with _often_switching(), ThreadPoolExecutor(threads) as pool:
        for ledger in pool.map(
            lambda number: _client(under_soak, number, seed, -(-rows // threads), patience_s), range(threads)
        ):
            book.add(ledger)
    under_soak.close(patience_s)
    if kept := under_soak._unsettled or len(under_soak._queue) or len(under_soak._room) or under_soak._queue.rows:
        book.stray(1, f"the idle batcher still holds {kept}")
    return book


def _engine(batch: Arrays, *_: object) -> Outputs:
    return {"answer": answer_to(batch["row"], 0)}


def _client(batcher: Batcher, number: int, seed: int, rows: int, patience_s: float) -> Ledger:
    """Some requests at once, some of them cancelled or with a deadline that passes; then all are waited for."""
    ledger, client = Ledger(work=0), str(number % CLIENTS)
    random = np.random.default_rng([seed, number])
    requests = 0
    while ledger.rows["right"] < rows and not ledger.faulty:
        flying: list[tuple[Entry, str, Future[Outputs]]] = []
        for _ in range(int(random.integers(1, 9))):
            requests += 1
            size = int(random.integers(1, 4) if random.random() < 0.5 else random.integers(4, 3 * LARGEST))
            entry = ledger.send(number, requests, size, int(random.choice(WIDTHS)))
            drawn = random.random()
            fate = CANCELLED if drawn < 0.1 else EXPIRED if drawn < 0.2 else ""
            deadline = time.monotonic() + float(random.uniform(0, 0.02)) if fate == EXPIRED else None
            try:
                request = batcher.reserve(size, deadline, client)
            except QueueFull:
                _refused(ledger, entry, batcher.room(size, client), patience_s)
                continue
            except DeadlineExceeded:
                ledger.settle(entry, EXPIRED)
                continue
            batcher.enqueue(request, {"row": entry.array})
            flying.append((entry, fate, request.future))
        for entry, fate, future in flying:
            if fate == CANCELLED:
                future.cancel()
            _book(ledger, entry, fate, future, patience_s)
    return ledger


def _refused(ledger: Ledger, entry: Entry, room: Future[None], patience_s: float) -> None:
    """Waits until there is room again."""
    try:
        room.result(patience_s)
        ledger.settle(entry, REFUSED)
    except TimeoutError:
        ledger.settle(entry, LOST, f"no room within {patience_s:g} s")


def _book(ledger: Ledger, entry: Entry, fate: str, future: Future[Outputs], patience_s: float) -> None:
    try:
        ledger.answer(entry, future.result(patience_s)["answer"])
        ledger.requests["split"] += entry.rows > LARGEST
    except CancelledError:
        ledger.settle(entry, CANCELLED if fate == CANCELLED else FAILED, "cancelled by nobody here")
    except DeadlineExceeded as error:
        ledger.settle(entry, EXPIRED if fate == EXPIRED else FAILED, str(error))
    except TimeoutError:
        ledger.settle(entry, LOST, f"no answer within {patience_s:g} s")
    except Exception as error:
        ledger.settle(entry, FAILED, f"{type(error).__name__}: {error}")


@contextmanager
def _often_switching() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
