"""Sums of device memory. The device is a fake with numbers of its own: it proves the sums and the order, nothing of CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from machines import NAMES, FakeDriver, FakeManagement
from tensign.admission import Admission
from tensign.cli.serve import _taken
from tensign.config import MIB, ModelConfig, ServerConfig
from tensign.doctor.lookup import Lookup
from tensign.doctor.memory import Room, find_rooms
from tensign.engines import Engine, cuda
from tensign.errors import InvalidConfig, OutOfMemory, ProviderUnavailable
from tensign.http.metrics import exposition
from tensign.ledger import RESERVE, Ledger
from tensign.model import Model
from tensign.repository import Repository
from test_engines_cuda import as_on_cuda

SPARE = RESERVE // MIB


@dataclass
class Card:
    """GPUs, in MiB: what others have of each, and what engines took."""

    others: dict[str, int]
    total: int = 10_000
    taken: dict[str, int] = field(default_factory=dict)

    def look(self) -> Mapping[str, Room]:
        return {
            device: Room((self.total - others - self.taken.get(device, 0)) * MIB, self.total * MIB)
            for device, others in self.others.items()
        }


class Fake(Engine):
    """Takes so many MiB when it is loaded, and knows only then where it runs."""

    def __init__(self, card: Card, size: int, device: str = "cuda:0", really: str = "") -> None:
        self.card, self.size, self.device, self.really = card, size, device, really or device

    def load(self) -> None:
        self.device = self.really
        self.card.taken[self.device] = self.card.taken.get(self.device, 0) + self.size

    def warmup(self, batch: Any, params: Any = None) -> None: ...

    def run(self, batch: Any, params: Any = None, deadline: float | None = None) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.card.taken[self.device] -= self.size


def loaded(ledger: Ledger, name: str, *engines: Fake) -> Mapping[str, int]:
    with ledger.loading(name, engines) as holding:
        for engine in engines:
            engine.load()
    return {device: size // MIB for device, size in holding.sizes.items()}


def test_each_model_is_measured_and_the_next_one_gets_what_is_left() -> None:
    card = Card({"cuda:0": 1000})
    ledger = Ledger(limit=7000 * MIB, look=card.look)
    assert ledger.left("cuda:0") == 7000 * MIB
    assert loaded(ledger, "a", Fake(card, 3100)) == {"cuda:0": 3100}
    assert loaded(ledger, "b", Fake(card, 2200, "auto", really="cuda:0")) == {"cuda:0": 2200}
    assert ledger.left("cuda") == 1700 * MIB
    with pytest.raises(ProviderUnavailable) as refused:
        loaded(ledger, "c", Fake(card, 1701))
    assert str(refused.value).startswith(
        'cuda:0 has 10000 MiB, budget 7000: "a" 3100, "b" 2200, other processes 1000; "c" needs 1701, more than the 1700 left;'
    )


def test_without_a_budget_all_that_others_leave_but_a_reserve() -> None:
    card = Card({"cuda:0": 4000})
    ledger = Ledger(look=card.look)
    assert ledger.left("auto") == (6000 - SPARE) * MIB and ledger.headroom("auto") == RESERVE
    card.others["cuda:0"] = 9900
    with pytest.raises(ProviderUnavailable, match='budget 9488: other processes 9900; "a" needs more than the 0 left'):
        loaded(ledger, "a", Fake(card, 1))
    assert card.taken == {}  # it was not even tried


def test_a_budget_is_no_memory_that_others_have() -> None:
    card = Card({"cuda:0": 9000})
    assert Ledger(limit=5000 * MIB, look=card.look).left("cuda:0") == (1000 - SPARE) * MIB


def test_a_gpu_called_by_two_names_has_one_sum() -> None:
    card = Card({"cuda:0": 1000})
    names = "cuda:0", "cuda:GPU-1", "cuda:1"

    def look() -> Mapping[str, Room]:
        (room,) = card.look().values()
        free = room.free - card.taken.get("cuda:GPU-1", 0) * MIB
        return {name: Room(free, room.total, uuid) for name, uuid in zip(names, ("GPU-1", "GPU-1", "GPU-2"), strict=True)}

    ledger = Ledger(limit=7000 * MIB, look=look)
    loaded(ledger, "a", Fake(card, 3000))
    loaded(ledger, "b", Fake(card, 1000, "cuda:GPU-1"))
    assert [ledger.left(name) for name in ("cuda:0", "cuda:GPU-1")] == [3000 * MIB] * 2 and ledger.left("cuda:1") == 4488 * MIB
    with pytest.raises(
        ProviderUnavailable, match='"a" 3000, "b" 1000, other processes 1000; "c" needs 3001, more than the 3000'
    ):
        loaded(ledger, "c", Fake(card, 3001))


def test_what_has_to_stay_free_is_the_same_for_who_comes_later_or_again() -> None:
    card = Card({"cuda:0": 500})
    ledger = Ledger(limit=6000 * MIB, look=card.look)
    first = ledger.headroom("cuda:0")
    loaded(ledger, "a", Fake(card, 2500))
    assert ledger.headroom("cuda:0") == first == 3500 * MIB


def test_devices_have_sums_of_their_own_and_a_model_that_goes_gives_its_part_back() -> None:
    card = Card({"cuda:0": 0, "cuda:1": 0})
    ledger = Ledger(limit=4000 * MIB, look=card.look)
    loaded(ledger, "a", Fake(card, 1000, "cuda:1"))
    engines = Fake(card, 3000, "cuda:0"), Fake(card, 2000, "cuda:1")
    with ledger.loading("b", engines) as holding:
        for engine in engines:
            engine.load()
    assert (ledger.left("cuda:0"), ledger.left("cuda:1")) == (1000 * MIB, 1000 * MIB)
    ledger.give_back(holding)
    ledger.give_back(holding)
    for engine in engines:
        engine.close()
    assert (ledger.left("cuda:0"), ledger.left("cuda:1")) == (4000 * MIB, 3000 * MIB)


def test_memory_that_runs_out_while_loading_is_told_with_the_sums() -> None:
    card = Card({"cuda:0": 0})
    ledger = Ledger(look=card.look)
    with pytest.raises(ProviderUnavailable, match='"a" needs more than the 9488 left'), ledger.loading("a", [Fake(card, 1)]):
        raise OutOfMemory("cuda:0: its memory does not hold a batch of so many rows")
    with pytest.raises(OutOfMemory), ledger.loading("b", [Fake(card, 1, "cpu")]):
        raise OutOfMemory("of this process")


def test_on_a_cpu_nobody_is_asked() -> None:
    def look() -> Mapping[str, Room]:
        raise AssertionError

    ledger = Ledger(look=look)
    assert ledger.headroom("cpu") is None
    assert loaded(ledger, "a", Fake(Card({}), 1, "cpu")) == {}


def test_where_nothing_tells_there_are_no_sums_and_no_budget_can_be_held() -> None:
    card = Card({})
    ledger = Ledger(look=card.look)
    assert loaded(ledger, "a", Fake(card, 1)) == {} and ledger.headroom("cuda:0") is None and ledger.left("cuda:0") is None
    with pytest.raises(ProviderUnavailable, match="cuda:1: nothing tells how much of its memory is free"):
        loaded(Ledger(limit=MIB, look=card.look), "a", Fake(card, 1, "cuda:1"))


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="device_memory_bytes: wanted at least 1, got 0"):
        ServerConfig(device_memory_bytes=0)


class Full(cuda.Sessions):
    """At its limit with the second row, in ONNX Runtime's own words."""

    def warm(self, batch: Any) -> None:
        if len(next(iter(batch.values()))) > 1:
            raise RuntimeError("bfc_arena.cc:360 Available memory of 1040384 is smaller than requested bytes of 8192000")
        super().warm(batch)


class Sessions:
    """A GPU on which every session takes 1000 MiB for as long as it lives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[Any]] = []
        self.runtime = as_on_cuda(monkeypatch, self.asked)
        monkeypatch.setattr(self.runtime, "memory", lambda index: (self.look()["cuda:0"].free, 10_000 * MIB))

    def look(self) -> Mapping[str, Room]:
        return {"cuda:0": Room((10_000 - 1000 * len(self.asked)) * MIB, 10_000 * MIB)}

    @property
    def limits(self) -> list[int]:
        return [int(dict(providers)[cuda.CUDA]["gpu_mem_limit"]) // MIB for providers in self.asked]


def test_no_arena_may_take_more_than_is_left_when_it_is_made(mean_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Sessions(monkeypatch)
    ledger = Ledger(limit=8000 * MIB, look=device.look)
    first = Model.load(mean_model, ModelConfig(device="cuda", max_batch_size=1), name="a", ledger=ledger)
    assert device.limits == [8000, 7000, 6000] and first.memory == {"cuda:0": 3000 * MIB}
    second = Model.load(mean_model, ModelConfig(device="cuda", max_batch_size=1), name="b", ledger=ledger)
    assert device.limits[3:] == [5000, 4000, 3000]
    page, _ = exposition(Repository([first, second]), Admission(1), "")
    assert b'tensign_device_memory_bytes{device="cuda:0",model="b",version="1"} 3.145728e+09' in page
    assert _taken(second) == " (3000 MiB)"
    with pytest.raises(ProviderUnavailable, match='"a" 3000, "b" 3000, other processes 0; "c" needs 3000, more than the 2000'):
        Model.load(mean_model, ModelConfig(device="cuda", max_batch_size=1), name="c", ledger=ledger)
    assert device.limits[6:] == [2000, 1000, 0]
    first.close()
    second.close()


def test_a_larger_batch_that_finds_no_memory_leaves_the_smaller_ones(mean_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Sessions(monkeypatch)

    monkeypatch.setattr(cuda, "Sessions", lambda opens, place, **options: Full(opens, ("cpu", 0)))
    ledger = Ledger(look=device.look)
    model = Model.load(mean_model, ModelConfig(device="cuda", max_batch_size=8), name="a", ledger=ledger)
    assert model.buckets.rows == (1,) and model.memory == {"cuda:0": 3000 * MIB}
    model.close()


# What tells it


def rooms(free: Mapping[str, int], driver: FakeDriver | None = None) -> Mapping[str, Room]:
    opened: dict[str, Any] = {"libcuda.so.1": driver or FakeDriver(), "libnvidia-ml.so.1": FakeManagement(free)}

    def library(name: str) -> Any:
        return opened[name]

    return find_rooms(Lookup(library=library))


FIRST, SECOND = "GPU-00000000-0000-0000-0000-000000000000", "MIG-01010101-0101-0101-0101-010101010101"


def test_the_driver_tells_what_is_free_on_whole_gpus_and_parts() -> None:
    assert rooms({FIRST: 5, SECOND: 7}) == {"cuda:0": Room(5, 80 << 30, FIRST), "cuda:1": Room(7, 80 << 30, SECOND)}


def test_a_device_is_known_by_its_own_name_too_and_by_how_that_begins() -> None:
    found = rooms({NAMES[1]: 5, NAMES[200]: 7})
    assert found == {
        f"cuda:{name}": Room(free, size << 30, name) for name, free, size in ((NAMES[1], 5, 80), (NAMES[200], 7, 10))
    }
    ledger = Ledger(look=lambda: {device: Room(2 << 30, 8 << 30) for device in (*found, "cuda:10")})
    assert ledger.left(f"cuda:{NAMES[200][:9]}") == (2 << 30) - RESERVE
    assert ledger.left("cuda:MIG-none") is None and ledger.left("cuda:1") is None


def test_a_device_of_which_it_does_not_tell_is_left_out() -> None:
    assert rooms({SECOND: 7}) == {"cuda:1": Room(7, 80 << 30, SECOND)}
    assert rooms({FIRST: 5}, FakeDriver(status=100)) == {}


def test_without_the_drivers_libraries_nothing_is_known() -> None:
    def library(name: str) -> Any:
        raise OSError(name)

    assert find_rooms(Lookup(library=library)) == {}
