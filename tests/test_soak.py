"""Short forms of `make soak`, and proof that each of them can fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from soak import core, flatness, load, models, streams
from soak.halfopen import half_open, reset
from soak.identity import answer_to
from soak.ledger import CANCELLED, EXPIRED, LOST, REFUSED, Entry, Ledger
from tensign.batcher import Batcher
from tensign.child import served
from tensign.lane import Place
from tensign.request import Outputs, Part
from tensign.turns import Turn

SEED = 1


def of(entry: Entry) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The right answer."""
    return answer_to(entry.array, 7)


def test_every_row_has_one_fate() -> None:
    ledger = Ledger(work=7)
    whole, parts, late, gone, full = (ledger.send(1, number, 5, 4) for number in range(5))
    ledger.answer(whole, of(whole))
    ledger.answer(parts, of(parts)[:2], last=False)
    ledger.answer(parts, of(parts)[2:], first=2)
    ledger.answer(late, of(late)[:1], last=False)
    for entry, fate in ((late, EXPIRED), (gone, CANCELLED), (full, REFUSED)):
        ledger.settle(entry, fate)
    assert ledger.rows == {"sent": 25, "right": 11, "expired": 4, "cancelled": 5, "refused": 5}
    assert ledger.requests == {"sent": 5, "answered": 2, "in parts": 1, "expired": 1, "cancelled": 1, "refused": 1}
    assert ledger.troubles() == []


def swapped(ledger: Ledger) -> None:
    one, other = ledger.send(1, 1, 2, 4), ledger.send(2, 9, 2, 4)
    rows = np.concatenate([of(one), of(other)])[[0, 2, 1, 3]]
    ledger.answer(one, rows[:2])
    ledger.answer(other, rows[2:])


def short(ledger: Ledger) -> None:
    entry = ledger.send(1, 1, 3, 4)
    ledger.answer(entry, of(entry)[:2])


def twice(ledger: Ledger) -> None:
    entry = ledger.send(1, 1, 3, 4)
    ledger.answer(entry, of(entry))
    ledger.answer(entry, of(entry))


def overlapping(ledger: Ledger) -> None:
    entry = ledger.send(1, 1, 3, 4)
    ledger.answer(entry, of(entry)[:2], last=False)
    ledger.answer(entry, of(entry)[1:], first=1)


def long(ledger: Ledger) -> None:
    entry = ledger.send(1, 1, 3, 4)
    ledger.answer(entry, np.concatenate([of(entry), of(entry)]))


def torn(ledger: Ledger) -> None:
    entry = ledger.send(1, 1, 3, 4)
    answer = of(entry)
    answer[2, 3] = of(ledger.send(5, 6, 1, 4))[0, 3]
    ledger.answer(entry, answer)


def unanswered(ledger: Ledger) -> None:
    ledger.send(1, 1, 3, 4)


def never_answered(ledger: Ledger) -> None:
    ledger.settle(ledger.send(1, 1, 3, 4), LOST, "the stream ended")


@pytest.mark.parametrize(
    ("happening", "told"),
    [
        (swapped, "2 wrong; first: request 1/1, row 1 of 2: in column 0 stands the answer to client 2, request 9, row 0,"),
        (torn, "1 wrong; first: request 1/1, row 2 of 3: in column 3 stands the answer to client 5, request 6, row 0,"),
        (short, "1 lost; first: request 1/1: 1 of 3 rows"),
        (never_answered, "3 lost; first: request 1/1: 3 of 3 rows: the stream ended"),
        (twice, "3 doubled; first: request 1/1"),
        (overlapping, "1 doubled; first: request 1/1"),
        (long, "3 stray; first: request 1/1"),
        (unanswered, "3 rows were sent, 0 have a fate"),
    ],
)
def test_the_ledger_notices(happening: Callable[[Ledger], None], told: str) -> None:
    ledger = Ledger(work=7)
    happening(ledger)
    assert told in ledger.troubles()[0]


def test_the_batcher_answers_every_row_of_32_threads_right() -> None:
    book = core.run(SEED, 40_000)
    assert book.troubles() == [], f"seed {SEED}"
    assert min(book.rows["refused"], book.rows["cancelled"], book.rows["expired"]) > 0
    assert book.requests["split"] > 100


class Swapping(Batcher):
    """Gives two neighbours of a batch each other's answers, where they have as many rows."""

    _taken: ClassVar[dict[int, list[Part]]] = {}  # by the lane's thread

    def next_batch(self, place: Place, turn: Turn) -> list[Part] | None:
        parts = super().next_batch(place, turn)
        self._taken[threading.get_ident()] = parts or []
        return parts

    def answer(self, part: Part, outcome: Outputs) -> None:
        taken = self._taken[threading.get_ident()]
        first, second = taken[0], taken[-1]
        if first.rows == second.rows and part in (first, second):
            part = second if part is first else first
        super().answer(part, outcome)


class Forgetting(Batcher):
    """Loses an answer now and then."""

    def answer(self, part: Part, outcome: Outputs) -> None:
        if part.rows != 3:
            super().answer(part, outcome)


@pytest.mark.parametrize(("broken", "told"), [(Swapping, "wrong; first: request"), (Forgetting, "lost; first: request")])
def test_a_broken_batcher_is_noticed(broken: type[Batcher], told: str) -> None:
    book = core.run(SEED, 10_000, threads=8, batcher=broken, patience_s=0.5)
    assert any(told in trouble for trouble in book.troubles())


def test_a_server_answers_every_row_of_32_clients_right(tmp_path: Path) -> None:
    with served(models.identity(tmp_path), "--device", "cpu") as address:
        plan = load.Load(address, SEED, 60_000, largest=load.largest_batch(address), within_s=60)
        book = load.run(plan)
        assert load.troubles(plan, book, load.statistics(address)) == [], f"seed {SEED}"
    assert min(book.rows["cancelled"], book.rows["expired"], book.requests["bad"]) > 0
    assert book.requests["split"] > 50


def test_a_server_that_swaps_rows_is_noticed(tmp_path: Path) -> None:
    with served(models.identity(tmp_path, reverse=True), "--device", "cpu") as address:
        plan = load.Load(address, SEED, 2_000, clients=8, largest=load.largest_batch(address), within_s=60)
        book = load.run(plan, processes=1)
        assert "wrong; first: request" in load.troubles(plan, book, load.statistics(address))[0]


def test_a_server_holds_no_more_after_good_and_bad_requests_than_before(tmp_path: Path) -> None:
    plan = flatness.Plan(SEED, rounds=9, warm_up=3, requests=300, within_s=60)
    report = flatness.run(plan, models.identity(tmp_path), models.colours(tmp_path))
    assert report.troubles() == [], f"seed {SEED}"
    assert len(report.seen) == 14  # kinds of requests: all were made


def test_a_server_that_holds_on_to_streams_is_not_flat(tmp_path: Path) -> None:
    async def sampled() -> list[flatness.Sample]:
        async with flatness.probed(models.identity(tmp_path, work=1)) as server:
            samples, kept = [await server.held(rest=True)], []
            for _ in range(3):
                kept += [half_open(server.address, "no message") for _ in range(5)]
                while True:
                    sample = await server.held(rest=True)
                    if sample["tasks"] >= samples[0]["tasks"] + len(kept):
                        break
                samples.append(sample)
            for connection in kept:
                reset(connection)
            return samples

    grown = flatness.grown(asyncio.run(sampled()))
    assert any(told.startswith("tasks grew") for told in grown)
    assert any(told.startswith("descriptors grew") for told in grown)


def test_a_thousand_streams_are_answered_right_and_in_order(tmp_path: Path) -> None:
    (report,) = streams.run([streams.Plan(SEED, seconds=4)], models.identity(tmp_path))
    assert report.troubles() == [] and report.sent >= 1000


def test_streams_of_wrong_answers_are_noticed(tmp_path: Path) -> None:
    (report,) = streams.run([streams.Plan(SEED, streams=5, seconds=0.2)], models.identity(tmp_path, reverse=True))
    assert any("wrong answers" in trouble for trouble in report.troubles())
