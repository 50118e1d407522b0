"""Memory of the GPUs: what each model has taken of it, what is left for the next one, and the sums where that is too little."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from tensign.config import MIB
from tensign.doctor.lookup import Lookup
from tensign.doctor.memory import Room, find_rooms
from tensign.engines import Engine
from tensign.errors import OutOfMemory, ProviderUnavailable

log = logging.getLogger(__name__)

# What no model gets: once requests come, CUDA, cuBLAS and cuDNN take more than was there at warm-up (kernels that are loaded
# when they first run, workspaces of further lanes), and after a failure of theirs only a new process can use the device again.
RESERVE = 512 * MIB


@dataclass(slots=True, eq=False)
class Holding:
    """What one model has: bytes by device, {} where none of its devices tells."""

    name: str
    sizes: dict[str, int] = field(default_factory=dict)


class Ledger:
    """Of the models of one server, which are loaded one after another.

    limit: bytes that all of them may have of each device, None for all but RESERVE of what other processes leave; look: what
    is free on every device now.
    """

    def __init__(self, limit: int | None = None, look: Callable[[], Mapping[str, Room]] | None = None) -> None:
        self._limit, self._look = limit, look or partial(find_rooms, Lookup())
        self._holdings: list[Holding] = []

    def headroom(self, device: str) -> int | None:
        """Bytes of a device that have to stay free, None where nothing tells what is: as --device names it."""
        rooms = {} if device == "cpu" else self._look()
        named = _named(device, rooms)
        return self._headroom(named, rooms) if named in rooms else None

    def left(self, device: str) -> int | None:
        """Bytes that the next model may take, at most 0 where there are none; None where nothing tells."""
        rooms = self._look()
        named = _named(device, rooms)
        return rooms[named].free - self._headroom(named, rooms) if named in rooms else None

    @contextmanager
    def loading(self, name: str, engines: Sequence[Engine]) -> Iterator[Holding]:
        """What is loaded and warmed up in this block is that model's, for as long as it is not given back.

        Raises ProviderUnavailable, with the sums, where it does not fit; closing the engines is the caller's.
        """
        before = self._look() if any(engine.device != "cpu" for engine in engines) else {}
        left = {device: room.free - self._headroom(device, before) for device, room in before.items()}
        for device in (engine.device for engine in engines):
            if device.startswith("cuda") and self._limit is not None and _named(device, before) not in before:
                raise ProviderUnavailable(
                    f"{device}: nothing tells how much of its memory is free, so that no budget can be held; make"
                    " libnvidia-ml.so.1 available, or leave --device-memory out"
                )
            if device.startswith("cuda") and left.get(_named(device, before), 1) <= 0:  # where "auto" runs is not known yet
                raise self._refusal(name, _named(device, before), before)
        holding = Holding(name)
        try:
            yield holding
        except OutOfMemory as error:
            named = [_named(engine.device, before) for engine in engines]
            devices = [device for device in named if device in before]
            if not devices:
                raise
            raise self._refusal(name, min(devices, key=left.__getitem__), before) from error
        after = self._look() if before else {}
        for device in (_named(engine.device, before) for engine in engines if engine.device != "auto"):
            if device in before and device in after:
                size = holding.sizes[device] = max(before[device].free - after[device].free, 0)
                if size > left[device]:
                    raise self._refusal(name, device, before, size)
                log.info("%s: %d MiB of %s, of %d that were left", name, size // MIB, device, left[device] // MIB)
        self._holdings.append(holding)

    def give_back(self, holding: Holding) -> None:
        """Ends what `loading` began."""
        if holding in self._holdings:
            self._holdings.remove(holding)

    def _headroom(self, device: str, rooms: Mapping[str, Room]) -> int:
        if self._limit is None:
            return RESERVE
        return max(rooms[device].free - (self._limit - sum(self._ours(device, rooms).values())), RESERVE)

    def _ours(self, device: str, rooms: Mapping[str, Room]) -> dict[Holding, int]:
        """Bytes that models have of a GPU, whichever of its names they call it by."""
        names = {device, *(name for name, room in rooms.items() if room.uuid and room.uuid == rooms[device].uuid)}
        return {
            holding: max(holding.sizes[name] for name in names & holding.sizes.keys())
            for holding in self._holdings
            if names & holding.sizes.keys()
        }

    def _refusal(self, name: str, device: str, rooms: Mapping[str, Room], size: int | None = None) -> ProviderUnavailable:
        room = rooms[device]
        left = max(room.free - self._headroom(device, rooms), 0)
        budget = room.total - RESERVE if self._limit is None else self._limit
        ours = self._ours(device, rooms)
        others = max(room.total - room.free - sum(ours.values()), 0)
        models = [f'"{each.name}" {taken // MIB}' for each, taken in ours.items()]
        sums = ", ".join((*models, f"other processes {others // MIB}"))
        needs = "more" if size is None else f"{-(-size // MIB)}, more"
        return ProviderUnavailable(
            f'{device} has {room.total // MIB} MiB, budget {budget // MIB}: {sums}; "{name}" needs {needs} than the'
            f" {left // MIB} left; serve fewer models here, or with a smaller --max-batch-size"
        )


def _named(device: str, rooms: Mapping[str, Room]) -> str:
    """Which device an order means, of those there are: "auto" is a GPU where there is one, a name may be cut short."""
    device = "cuda:0" if device in ("auto", "cuda") else device
    if device in rooms or device.partition(":")[2].isdigit():
        return device
    found = [whole for whole in rooms if whole.startswith(device)]
    return found[0] if len(found) == 1 else device
