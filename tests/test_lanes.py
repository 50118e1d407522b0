"""Several lanes and devices behind one queue. The devices are fakes: they prove order and what faults do, nothing of CUDA."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tensign.batcher import Batcher
from tensign.buckets import Buckets
from tensign.errors import DeviceLost, EngineError, ModelNotReady, OutOfMemory, WorkerDied
from tensign.lane import Place
from tensign.metrics import Statistics
from tensign.request import Outputs
from tensign.signature import Arrays

SOON = 10.0  # seconds; what takes longer has hung
EVEN = Buckets((1, 2, 4, 8), (1.0, 1.0, 1.0, 1.0))


class Device:
    """Doubles its input, each batch when it is let; `fault` may raise first."""

    def __init__(self, name: str = "cuda:0", lanes: int = 1) -> None:
        self.name, self.lanes = name, lanes
        self.ready = True
        self.batches: list[list[float]] = []
        self.made: list[npt.NDArray[Any]] = []
        self.entered, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.fault: Callable[[list[float]], None] = lambda rows: None

    def run(self, batch: Arrays, params: Mapping[str, Any], deadline: float | None) -> Outputs:
        rows = [float(row[0]) for row in batch["x"]]
        self.batches.append(rows)
        self.entered.release()
        assert self.gate.acquire(timeout=SOON)
        self.fault(rows)
        return {"y": batch["x"] * 2}

    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        self.made.append(np.zeros(shape, dtype))
        return self.made[-1]

    @property
    def place(self) -> Place:
        return Place(self.run, self.lanes, self.empty, lambda: self.ready)

    def open(self, runs: int = 1000) -> None:
        self.gate.release(runs)

    def wait_until_busy(self) -> None:
        assert self.entered.acquire(timeout=SOON)

    def lose(self, rows: list[float]) -> None:
        self.ready = False
        raise DeviceLost(f"{self.name}: an ECC error")


Made = Callable[..., Batcher]


@pytest.fixture
def made() -> Iterator[Made]:
    opened: list[tuple[Batcher, tuple[Device, ...]]] = []

    def make(*devices: Device, buckets: Buckets = EVEN) -> Batcher:
        places = [device.place for device in devices]
        batcher = Batcher(places, buckets, max_queue_rows=100, statistics=Statistics())
        opened.append((batcher, devices))
        return batcher

    yield make
    for batcher, devices in opened:
        for device in devices:
            device.open()
        batcher.close(SOON)


def submit(batcher: Batcher, *rows: float) -> Future[Outputs]:
    request = batcher.reserve(len(rows))
    batcher.enqueue(request, {"x": np.array(rows, np.float32)[:, None]})
    return request.future


def answer(future: Future[Outputs]) -> list[float]:
    return [float(row[0]) for row in future.result(SOON)["y"]]


def test_a_second_lane_takes_the_next_batch_while_the_first_computes(made: Made) -> None:
    device = Device(lanes=2)
    batcher = made(device)
    first = submit(batcher, 1)
    device.wait_until_busy()
    second = submit(batcher, 2, 3)
    device.wait_until_busy()
    assert device.batches == [[1], [2, 3]]
    device.open()
    assert (answer(first), answer(second)) == ([2], [4, 6])


def test_parts_that_end_out_of_order_are_answered_in_order(made: Made) -> None:
    device, slow = Device(lanes=2), threading.Event()

    def hold_the_first(rows: list[float]) -> None:
        if 0 in rows:
            assert slow.wait(SOON)

    device.fault = hold_the_first
    batcher = made(device)
    device.open()
    whole = submit(batcher, *range(12))  # 8 rows, then 4
    while len(device.batches) < 2:
        device.wait_until_busy()
    assert not whole.done()
    slow.set()
    assert answer(whole) == [2 * row for row in range(12)]


def test_rows_are_gathered_in_memory_of_the_device_one_buffer_a_lane(made: Made) -> None:
    device = Device(lanes=2)
    device.open()
    batcher = made(device, buckets=Buckets((8,), (1.0,)))
    for _ in range(20):
        assert answer(submit(batcher, 1, 2)) == [2, 4]
    assert 1 <= len(device.made) <= 2 and {buffer.shape for buffer in device.made} == {(8, 1)}


def test_devices_share_one_queue(made: Made) -> None:
    devices = Device("cuda:0"), Device("cuda:1")
    batcher = made(*devices)
    futures = [submit(batcher, 1)]
    while not any(device.batches for device in devices):
        wait(futures, 0.01)
    futures.append(submit(batcher, 2))  # of which the busy one can take none
    for device in devices:
        device.wait_until_busy()
    for device in devices:
        device.open()
    assert [answer(future) for future in futures] == [[2], [4]]


def test_what_a_lost_device_held_is_answered_by_the_others(made: Made) -> None:
    bad, good = Device("cuda:0"), Device("cuda:1")
    bad.fault = bad.lose
    good.open()
    batcher = made(bad, good)
    held: list[Future[Outputs]] = []
    while not bad.batches:  # whichever of the two takes the next one
        held.append(submit(batcher, 1))
        wait(held[-1:], 0.02)
    bad.open()
    held += [submit(batcher, row) for row in range(5)]
    assert [answer(future) for future in held] == [[2]] * (len(held) - 5) + [[2.0 * row] for row in range(5)]
    assert batcher.working and len(bad.batches) == 1


def test_one_request_takes_two_devices_with_it_at_most(made: Made) -> None:
    devices = [Device(f"cuda:{number}") for number in range(3)]
    batcher = made(*devices)

    def poisoned(device: Device) -> Callable[[list[float]], None]:
        return lambda rows: device.lose(rows) if 13 in rows else None

    for device in devices:
        device.fault = poisoned(device)
        device.open()
    with pytest.raises(DeviceLost, match="an ECC error"):
        submit(batcher, 13).result(SOON)
    assert sorted(device.ready for device in devices) == [False, False, True]
    assert answer(submit(batcher, 4)) == [8]


def test_without_a_device_everybody_is_told_and_nobody_waits(made: Made) -> None:
    device = Device(lanes=2)
    device.fault = device.lose
    batcher = made(device)
    first = submit(batcher, 1)
    device.wait_until_busy()
    second = submit(batcher, 2)
    device.wait_until_busy()
    waiting, reserved = submit(batcher, 3), batcher.reserve(1)
    device.open()
    for future in (first, second, waiting, reserved.future):
        with pytest.raises(ModelNotReady, match="cuda:0: an ECC error"):
            future.result(SOON)
    assert not batcher.working
    with pytest.raises(ModelNotReady, match="no device left"):
        batcher.reserve(1)


def test_while_one_is_started_again_the_others_work(made: Made) -> None:
    """A worker that died comes back by itself; what it held goes elsewhere at once."""
    ill, well = Device("cuda:0"), Device("cuda:1")

    def die(rows: list[float]) -> None:
        ill.ready, ill.fault = False, lambda rows: None
        raise WorkerDied("its process ended")

    ill.fault = die
    ill.open()
    batcher = made(ill, well)
    well.ready = False
    held = submit(batcher, 7)
    ill.wait_until_busy()
    well.ready = True
    well.open()
    assert answer(held) == [14] or ill.batches == [[7], [7]]
    assert answer(submit(batcher, 1)) == [2]
    ill.ready = True
    for _ in range(200):
        assert answer(submit(batcher, 5)) == [10]
        if len(ill.batches) > 1:
            break
    assert len(ill.batches) > 1


def test_memory_that_runs_out_makes_batches_smaller_and_loses_nothing(made: Made) -> None:
    device = Device()

    def at_most_two(rows: list[float]) -> None:
        if len(rows) > 2:
            raise OutOfMemory(f"cuda:0: no room for {len(rows)} rows")

    device.fault = at_most_two
    batcher = made(device)
    first = submit(batcher, 0)
    device.wait_until_busy()
    others = [submit(batcher, 1, 2, 3), submit(batcher, *range(4, 12))]
    device.open()
    assert [answer(each) for each in (first, *others)] == [[0], [2, 4, 6], [2.0 * row for row in range(4, 12)]]
    assert batcher.buckets.rows == (1, 2)


def test_of_a_request_that_failed_nothing_more_is_run(made: Made) -> None:
    device = Device()

    def bad_at_two(rows: list[float]) -> None:
        if len(rows) > 2:
            raise OutOfMemory("cuda:0: no room")
        if 2 in rows:
            raise ValueError("no")

    device.fault = bad_at_two
    device.open()
    batcher = made(device)
    with pytest.raises(EngineError, match="ValueError"):
        submit(batcher, *range(8)).result(SOON)
    assert answer(submit(batcher, 9)) == [18]
    assert device.batches == [[*range(8)], [*range(4)], [0, 1], [2, 3], [9]]


def test_where_not_even_one_row_fits_its_request_fails_alone(made: Made) -> None:
    device = Device()

    def never(rows: list[float]) -> None:
        if 13 in rows:
            raise OutOfMemory("cuda:0: no room")

    device.fault = never
    device.open()
    batcher = made(device)
    with pytest.raises(EngineError, match="no room"):
        submit(batcher, 13).result(SOON)
    assert answer(submit(batcher, 1)) == [2]


def test_many_callers_on_lanes_devices_and_faults_all_get_their_own(made: Made) -> None:
    devices = Device("cuda:0", lanes=2), Device("cuda:1", lanes=2)
    turns = itertools.count()

    def full(rows: list[float]) -> None:
        if len(rows) > 4 and next(turns) == 3:
            raise OutOfMemory("cuda:0: no room")

    def lost(rows: list[float]) -> None:
        if len(devices[1].batches) > 30:
            devices[1].lose(rows)

    for device, fault in zip(devices, (full, lost), strict=True):
        device.fault = fault
        device.open(100_000)
    batcher = made(*devices)
    wrong: list[tuple[list[float], list[float]]] = []

    def caller(number: int) -> None:
        random = np.random.default_rng(number)
        for _ in range(50):
            rows = [float(value) for value in random.integers(0, 1000, random.integers(1, 12))]
            if (got := answer(submit(batcher, *rows))) != [2 * row for row in rows]:
                wrong.append((rows, got))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not devices[1].ready and batcher.buckets.largest == 4
    assert batcher.statistics.snapshot().success.count == 8 * 50
