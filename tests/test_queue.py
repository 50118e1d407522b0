"""Who is next among those who wait, and who may come."""

from __future__ import annotations

import random
import time
from concurrent.futures import Future

import numpy as np
import pytest

from tensign.queue import Queue
from tensign.request import Part, Request


def put(
    queue: Queue, name: object, *, rows: int = 1, client: str = "", deadline: float | None = None, kind: str = ""
) -> Request:
    request = Request(rows, deadline, Future(), 0, {"name": np.array([name])}, kind=(kind,), client=client)
    queue.reserve(rows, client)
    queue.add(request)
    return request


def never(_: Request) -> bool:
    return False


def batch(queue: Queue, rows: int) -> list[Part]:
    alike, _ = queue.alike(rows, never)
    return queue.take(alike, min(rows, sum(request.remaining for request in alike)))


def names(parts: list[Part]) -> list[str]:
    return [str(part.request.arrays["name"][0]) for part in parts]


def drained(queue: Queue, rows: int = 1) -> list[str]:
    found = []
    while queue:
        found += names(batch(queue, rows))
    assert queue.rows == 0
    return found


def test_the_earliest_deadline_is_first_none_is_last_and_equals_go_by_arrival() -> None:
    queue = Queue(100)
    for name, deadline in {"a": None, "b": 9.0, "c": 5.0, "d": 9.0, "e": None, "f": 1.0}.items():
        put(queue, name, deadline=deadline)
    assert drained(queue) == list("fcbdae")


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_flood_keeps_a_trickle_waiting_for_no_more_than_a_row_and_a_batch(rows: int) -> None:
    queue = Queue(1000)
    for number in range(300):
        put(queue, number, client="flood", deadline=1.0)
    batch(queue, rows)
    for _ in range(20):
        put(queue, "trickle", client="other")  # without a deadline, which moves nobody before another client
        waited = 0
        while "trickle" not in names(batch(queue, rows)):
            waited += 1
        assert waited <= (1 if rows == 1 else 0)


def test_floods_share_by_rows_whatever_their_requests_are() -> None:
    queue, served = Queue(10_000), {"small": 0, "large": 0, "third": 0}
    for number in range(500):
        put(queue, number, client="small")
        put(queue, number, client="third")
        if number < 50:
            put(queue, number, rows=10, client="large")
    for _ in range(60):
        for part in batch(queue, 8):
            served[part.request.client] += part.rows
    assert sum(served.values()) == 480 and all(150 <= rows <= 170 for rows in served.values())


def test_who_was_served_early_is_not_served_again_before_those_who_wait() -> None:
    """One large request at a time takes no more than one small one at a time."""
    queue, served = Queue(1000), {"large": 0, "small": 0}
    for number in range(100):
        put(queue, number, client="small")
    put(queue, "large", rows=10, client="large")
    for _ in range(100):
        (part,) = batch(queue, 1)
        served[part.request.client] += part.rows
        if part.request.client == "large" and not part.request.remaining:
            put(queue, "large", rows=10, client="large")
    assert 40 <= served["large"] <= 60


def test_clients_who_come_anew_with_every_request_starve_nobody() -> None:
    queue = Queue(1000)
    for number in range(20):
        put(queue, number, client=f"stranger {number}")
    for _ in range(5):
        put(queue, "trickle", client="other")
        for number in range(60):
            put(queue, number, client=f"{id(object())} {number} {time.perf_counter_ns()}")
            if "trickle" in names(batch(queue, 1)):
                break
        else:
            pytest.fail("the trickle was passed over 60 times")


def test_clients_who_have_gone_are_forgotten() -> None:
    queue = Queue(10_000)
    for number in range(5000):
        put(queue, number, client=f"stranger {number}")
        put(queue, number, client="flood")
        batch(queue, 1)
    assert len(queue._lines) < 5000 + 200 and len(queue._heap) < 12_000
    drained(queue, 64)
    assert len(queue._lines) <= 1 and not queue._heap


def test_a_batch_is_of_the_leaders_kind_and_leaves_the_others_in_their_places() -> None:
    queue = Queue(100)
    for name, kind in {"a": "x", "b": "y", "c": "x", "d": "y"}.items():
        put(queue, name, kind=kind)
        put(queue, name * 2, kind=kind, client="other")
    assert names(batch(queue, 3)) == ["a", "aa", "c"]
    assert names(batch(queue, 8)) == ["bb", "b", "dd", "d"]
    assert drained(queue) == ["cc"]


def test_a_request_larger_than_a_batch_is_taken_bit_by_bit() -> None:
    queue = Queue(100)
    put(queue, "a", rows=5)
    put(queue, "b")
    assert [(part.start, part.stop) for part in batch(queue, 4)] == [(0, 4)]
    assert names(batch(queue, 4)) == ["a", "b"]


def test_who_is_over_is_told_of_on_the_way_and_not_taken() -> None:
    queue = Queue(100)
    gone, kept = put(queue, "gone"), put(queue, "kept")
    assert queue.alike(8, lambda request: request is gone) == ([kept], [gone])
    assert queue.sweep(lambda request: request is gone) == [gone]


def test_removed_requests_leave_nothing_behind() -> None:
    queue, random_ = Queue(10_000), random.Random(0)
    requests = [put(queue, n, client=str(n % 7), deadline=random_.choice([None, 1.0, 2.0])) for n in range(500)]
    random_.shuffle(requests)
    for request in requests[:400]:
        queue.remove(request)
        queue.remove(request)  # once more does nothing
        queue.give_back(1, request.client)
    assert sorted(map(int, drained(queue, 3))) == sorted(int(r.arrays["name"][0]) for r in requests[400:])


def test_one_flood_leaves_a_fifth_of_the_queue_and_others_get_it() -> None:
    queue = Queue(100)
    for number in range(200):
        if queue.admits(1, "flood"):
            put(queue, number, client="flood")
    assert queue.rows == 80
    assert queue.admits(20, "other") and not queue.admits(21, "other")
    assert "80 rows are waiting, 100 may, and 80 of them are this client's" in queue.refusal(1, "flood")


def test_several_floods_leave_some_room_to_whoever_has_nothing_there() -> None:
    queue = Queue(130)
    for _ in range(200):
        for client in "abc":
            if queue.admits(1, client):
                put(queue, client, client=client)
    assert {client: queue.rows_of(client) for client in "abc"} == {"a": 40, "b": 40, "c": 40}
    assert queue.admits(10, "other")


def test_a_client_alone_may_fill_the_queue_with_one_request() -> None:
    queue = Queue(100)
    assert queue.admits(100, "one") and not queue.admits(101, "one")


@pytest.mark.parametrize(("clients", "rows"), [(1, 64), (512, 64), (512, 1), (1, 1)])
def test_a_batch_of_many_who_wait_costs_little(clients: int, rows: int) -> None:
    queue = Queue(100_000)
    for number in range(512):
        put(queue, number, client=str(number % clients))
    taken, started = 0, time.thread_time()
    while queue:
        taken += len(batch(queue, rows))
    assert taken == 512 and (time.thread_time() - started) / 512 < 100e-6
