"""Turns of several models on one device. Clock and devices are fakes: they prove order and faults, nothing of CUDA."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from conftest import CPU, save_onnx, tensor, write_mlmodel
from tensign import turns as module
from tensign.batcher import Batcher
from tensign.buckets import Buckets
from tensign.client import Client
from tensign.errors import DeadlineExceeded, DeviceLost, ModelNotReady
from tensign.lane import Place
from tensign.metrics import Statistics
from tensign.model import Model
from tensign.repository import Repository
from tensign.testing import serving
from tensign.turns import Share, Turn, Turns
from test_lanes import SOON, Device, answer, submit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Shared:
    """A device on a clock that moves only while a batch runs; `lanes` of each model that want it, and what each costs."""

    def __init__(self, lanes: dict[str, int], costs: dict[str, float], runs: int = 1) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.costs = costs
        self.shares = {name: Share(runs) for name in lanes}
        self.lanes = {name: [Turn(share) for _ in range(lanes[name])] for name, share in self.shares.items()}
        for share in self.shares.values():
            self.turns.add(share)
        self.order: list[str] = []  # of batches, as they end

    def ask(self, name: str, lane: int = 0) -> Turn:
        turn = self.lanes[name][lane]
        turn._turns = self.turns
        self.turns.ask(turn)
        return turn

    @property
    def running(self) -> list[tuple[str, Turn]]:
        return [(name, turn) for name, lanes in self.lanes.items() for turn in lanes if turn.admitted.is_set()]

    def end_one(self, *, once: str = "") -> str:
        """The batch that ends first, whose lane wants another turn at once, but for that of one model."""
        name, turn = min(self.running, key=lambda each: each[1].began + self.costs[each[0]])
        self.clock.now = max(self.clock.now, turn.began + self.costs[name])
        self.order.append(name)
        turn.leave(again=name != once)
        return name


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("lanes", [1, 2])
def test_floods_of_batches_that_cost_more_and_less_get_the_same_time(lanes: int, runs: int) -> None:
    device = Shared(dict.fromkeys("abc", lanes), {"a": 1.0, "b": 0.1, "c": 0.3}, runs)
    for name in "abc":
        for lane in range(lanes):
            device.ask(name, lane)
    while device.clock.now < 100:
        device.end_one()
    used = [share.used for share in device.shares.values()]
    assert max(used) - min(used) <= 2 * runs


@pytest.mark.parametrize("runs", [1, 2])
def test_who_comes_seldom_waits_for_one_running_batch(runs: int) -> None:
    device = Shared({"flood": 3, "seldom": 1}, {"flood": 10.0, "seldom": 1.0}, runs)
    for lane in range(3):
        device.ask("flood", lane)
    for _ in range(50):
        for _ in range(4):
            device.end_one()
        turn = device.ask("seldom")
        assert device.end_one() == "flood" and turn.admitted.is_set()
        while device.end_one(once="seldom") != "seldom":
            pass


def test_of_what_was_not_used_nothing_is_kept() -> None:
    device = Shared({"early": 1, "late": 1}, {"early": 1.0, "late": 1.0})
    device.ask("early")
    for _ in range(100):
        device.end_one()
    device.ask("late")
    device.order.clear()
    for _ in range(20):
        device.end_one()
    assert Counter(device.order) == {"early": 10, "late": 10}


def test_who_is_alone_needs_no_turn_and_gets_those_that_others_leave() -> None:
    turns, first, second = Turns(), Share(), Share()
    turn, other = Turn(first), Turn(second)
    assert not turn.needed
    turns.add(first)
    assert not turn.needed
    turns.add(second)
    assert turn.needed
    turn.enter()
    assert not turn.needed and other.needed
    waiting = threading.Thread(target=other.enter)
    waiting.start()
    first.end()  # its model is closed, whose last batch still runs
    waiting.join(SOON)
    assert other.admitted.is_set() and not Turn(second).needed
    turn.leave()
    other.leave()
    second.end()
    second.end()


def test_what_waits_behind_a_run_that_is_stuck_runs_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STUCK_S", 0.01)
    clock = Clock()
    turns, stuck, well = Turns(clock), Share(), Share()
    turns.add(stuck)
    turns.add(well)
    Turn(stuck).enter()
    turn = Turn(well)
    waiting = threading.Thread(target=turn.enter)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    clock.now = 1.0
    waiting.join(SOON)
    assert turn.admitted.is_set()
    for _ in range(3):  # nor does each of its batches wait anew
        turn.leave(again=True)
        assert turn.admitted.is_set()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.booleans()), max_size=60), st.integers(1, 3))
def test_nobody_waits_beside_an_idle_device_and_no_more_run_than_may(events: list[tuple[str, int, bool]], runs: int) -> None:
    """Each event is a lane's: it asks where it has not asked, else it leaves, whether it was let in or not."""
    device = Shared(dict.fromkeys("abc", 2), dict.fromkeys("abc", 1.0), runs)
    asked: set[tuple[str, int]] = set()
    for name, lane, again in events:
        device.clock.now += 0.1
        if (name, lane) not in asked:
            asked.add((name, lane))
            device.ask(name, lane)
        else:
            device.lanes[name][lane].leave(again=again)
            asked -= set() if again else {(name, lane)}
        assert len(device.running) == min(len(asked), runs)


# Lanes and batchers


class Beside:
    """Two models' batchers on one fake device, where one batch runs at a time."""

    def __init__(self, buckets: Buckets) -> None:
        self.devices = Device("a"), Device("b")
        self.turns = Turns()
        self.order: list[str] = []
        places = []
        for device in self.devices:
            device.fault = lambda rows, name=device.name: self.order.append(name)  # type: ignore[misc]
            place = Place(device.run, 1, device.empty, lambda device=device: device.ready)  # type: ignore[misc]
            self.turns.add(place.share)
            places.append(place)
        self.first, self.second = (Batcher([place], buckets, max_queue_rows=100, statistics=Statistics()) for place in places)


@pytest.fixture
def beside() -> Iterator[Beside]:
    made = Beside(Buckets((1, 2, 4), (1.0, 1.0, 1.0)))
    yield made
    for device in made.devices:
        device.open()
    for batcher in (made.first, made.second):
        batcher.close(SOON)


def test_behind_a_flood_the_other_model_is_next_with_all_that_came_meanwhile(beside: Beside) -> None:
    flooded, other = beside.devices
    futures = [submit(beside.first, row) for row in range(4)]
    flooded.wait_until_busy()
    futures += [submit(beside.first, *range(4)) for _ in range(10)]
    late = [submit(beside.second, row) for row in range(4)]
    while not beside.turns._waiting:
        wait(late, 0.001)
    other.open()
    flooded.open()
    assert [answer(future) for future in late] == [[2.0 * row] for row in range(4)]
    for future in futures:
        future.result(SOON)
    assert beside.order[1] == "b" and other.batches == [[0, 1, 2, 3]]


def test_a_lane_with_more_to_run_is_not_passed_over_while_it_answers() -> None:
    """Else two floods would take turns one by one, whatever their batches cost."""
    beside, clock = Beside(Buckets((1,), (1.0,))), Clock()
    beside.turns._clock = clock
    for device, cost in zip(beside.devices, (10.0, 1.0), strict=True):

        def run(rows: list[float], name: str = device.name, cost: float = cost) -> None:
            beside.order.append(name)
            clock.now += cost

        device.fault = run
    futures = [submit(beside.first, row) for row in range(5)]
    beside.devices[0].wait_until_busy()
    futures += [submit(beside.second, row) for row in range(50)]
    while not beside.turns._waiting:
        wait(futures, 0.001)
    for device in beside.devices:
        device.open()
    for future in futures:
        future.result(SOON)
    second = beside.order.index("a", 1)
    assert beside.order[1:second] == ["b"] * 10 and beside.order.index("a", second + 1) - second >= 9
    for batcher in (beside.first, beside.second):
        batcher.close(SOON)


def test_what_expires_while_it_waits_for_a_turn_is_never_computed(beside: Beside) -> None:
    flooded, other = beside.devices
    held = submit(beside.first, 1)
    flooded.wait_until_busy()
    now = 100.0
    beside.second._clock = lambda: now
    request = beside.second.reserve(1, deadline=101.0)
    beside.second.enqueue(request, {"x": np.zeros((1, 1), np.float32)})
    now = 102.0
    flooded.open()
    other.open()
    with pytest.raises(DeadlineExceeded, match="in the queue"):
        request.future.result(SOON)
    assert answer(held) == [2] and other.batches == []
    assert answer(submit(beside.first, 3)) == [6]  # the turn that nobody used was given on


def test_a_model_that_is_closed_while_it_waits_keeps_no_turn(beside: Beside) -> None:
    flooded, _ = beside.devices
    held = [submit(beside.first, 1)]
    flooded.wait_until_busy()
    waiting = submit(beside.second, 5)
    beside.second.close(0)
    with pytest.raises(ModelNotReady, match="server stopped"):
        waiting.result(SOON)
    held += [submit(beside.first, row) for row in range(5)]
    flooded.open()
    for future in held:
        future.result(SOON)


def test_a_device_that_is_lost_gives_its_turn_on(beside: Beside) -> None:
    lost, well = beside.devices
    lost.fault = lost.lose
    held = submit(beside.first, 1)
    lost.wait_until_busy()
    waiting = submit(beside.second, 5)
    well.open()
    lost.open()
    with pytest.raises(DeviceLost):
        held.result(SOON)
    assert answer(waiting) == [10] and answer(submit(beside.second, 6)) == [12]


def test_a_batch_that_fails_gives_its_turn_on(beside: Beside) -> None:
    bad, well = beside.devices

    def fail(rows: list[float]) -> None:
        raise ValueError("no")

    bad.fault = fail
    held = [submit(beside.first, row) for row in range(8)]
    bad.wait_until_busy()
    waiting = submit(beside.second, 5)
    well.open()
    bad.open()
    assert answer(waiting) == [10]
    for future in held:
        assert future.exception(SOON)


# For real, on the CPU

LONG = 60.0  # seconds, on a machine that others load


def slow_model(path: Path, products: int) -> Path:
    """float32 [-1,256] -> the same shape, after so many products of matrices."""
    spec = [tensor("float32", [-1, 256])]
    write_mlmodel(path, signature={"inputs": spec, "outputs": spec})
    weights = helper.make_node(
        "Constant", [], ["w"], value=helper.make_tensor("v", TensorProto.FLOAT, [256, 256], np.eye(256).ravel())
    )
    names = ["x", *(f"h{number}" for number in range(1, products)), "y"]
    nodes = [helper.make_node("MatMul", [names[at], "w"], [names[at + 1]]) for at in range(products)]
    shape = (TensorProto.FLOAT, ["n", 256])
    save_onnx(path / "model.onnx", [weights, *nodes], {"x": shape}, {"y": shape})
    return path


def test_on_one_cpu_no_flood_starves_another_model(tmp_path: Path) -> None:
    heavy = Model.load(slow_model(tmp_path / "heavy", 200), CPU, name="heavy")
    light = Model.load(slow_model(tmp_path / "light", 20), CPU, name="light")
    rows, stop = np.ones((heavy.largest_batch, 256), np.float32), threading.Event()
    with serving(heavy, light) as address, ThreadPoolExecutor(8) as pool, Client(address, model="light") as client:

        def flood(model: Model) -> None:
            while not stop.is_set():
                model.infer(rows)

        try:
            floods = [pool.submit(flood, heavy) for _ in range(3)]
            before = heavy.statistics.snapshot().executions
            for _ in range(20):
                assert (client.infer({"input-0": rows[:1]}, timeout_s=LONG)["output-0"] == 1).all()
            assert heavy.statistics.snapshot().executions > before
            floods += [pool.submit(flood, light) for _ in range(3)]
            for model in (heavy, light) * 5:
                model.infer(rows[:1], timeout_s=LONG)
            assert all(share.used for each in (heavy, light) for _, share in each.shares)
        finally:
            stop.set()
        for each in floods:
            each.result(LONG)


def test_a_model_alone_or_on_another_device_takes_no_turns(tmp_path: Path) -> None:
    model = Model.load(slow_model(tmp_path / "alone", 1), CPU)
    Repository([model])
    ((device, share),) = model.shares
    model.infer(np.ones((3, 256), np.float32))
    assert device == "cpu" and share.turns is not None and not share.turns.shared and share.used == 0
    model.close()
