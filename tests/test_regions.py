"""The table of shared memory: what may be registered, and what becomes of a region whose owner changes his mind."""

from __future__ import annotations

import gc
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tensign import regions
from tensign.config import ServerConfig
from tensign.devicememory import DeviceRegion
from tensign.errors import InvalidConfig, InvalidInput, NotAllowed, NotOffered
from tensign.regions import FOLDER, Regions, SystemRegion

OURS = f"tensign-test-{os.getpid()}-table-"


@pytest.fixture
def memory() -> Iterator[Path]:
    """100 bytes of shared memory, 0 to 99; its file, and whatever a test puts beside it, go away."""
    file = Path(FOLDER, f"{OURS}memory")
    file.write_bytes(bytes(range(100)))
    yield file
    for left in Path(FOLDER).glob(f"{OURS}*"):
        left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()


@pytest.fixture
def table(memory: Path) -> Regions:
    return Regions((f"{OURS}*",))


def test_a_region_is_read_and_written_where_it_lies(table: Regions, memory: Path) -> None:
    table.register("one", f"/{memory.name}", 10, 50)
    region = table["one"]
    assert region.read(5, 3) == bytes([15, 16, 17])
    region.write(48, b"ab")
    assert memory.read_bytes()[56:62] == bytes([56, 57]) + b"ab" + bytes([60, 61])


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("exact", True),
        ("/exact", True),
        ("begins-1", True),
        ("begins-", True),
        ("exact1", False),
        ("begin", False),
        ("x", False),
    ],
)
def test_keys_are_exact_or_begin_so(key: str, allowed: bool) -> None:
    table = Regions(("/exact", "begins-*"))
    with pytest.raises(InvalidInput if allowed else NotAllowed, match="cannot be opened" if allowed else "--shared-memory"):
        table.register("one", key, 0, 1)


@pytest.mark.parametrize(
    "key",
    ["", "/", ".", "..", "/..", "../etc/passwd", "/a/b", "a/b", "//a", "a\0b", "a\nb", "x" * 256, "/dev/shm/a", "ä" * 200],
)
def test_a_key_is_a_plain_name(key: str) -> None:
    with pytest.raises(InvalidInput, match="expected the plain name of shared memory"):
        Regions(("*",)).register("one", key, 0, 1)


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (100, 1), (2**64 - 1, 1), (1, 2**64 - 1), (2**63, 2**63), (99, 2)])
def test_a_region_lies_within_its_memory(table: Regions, memory: Path, offset: int, size: int) -> None:
    with pytest.raises(InvalidInput, match=f"{size} bytes from {offset} on end behind shared memory .*, of 100"):
        table.register("one", memory.name, offset, size)
    table.register("one", memory.name, 0, 100)


@pytest.mark.parametrize("name", ["", "a\n", "\0", "x" * 257])
def test_a_region_has_a_printable_name(table: Regions, memory: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="printable letters"):
        table.register(name, memory.name, 0, 1)


def test_no_bytes_are_no_region(table: Regions, memory: Path) -> None:
    with pytest.raises(InvalidInput, match="at least 1 byte"):
        table.register("one", memory.name, 0, 0)


def test_neither_links_nor_pipes_nor_folders_are_opened(table: Regions, memory: Path) -> None:
    link, pipe, folder = (memory.with_name(OURS + kind) for kind in ("link", "pipe", "folder"))
    link.symlink_to("/etc/passwd")
    os.mkfifo(pipe)
    folder.mkdir()
    for file, why in ((link, "cannot be opened"), (pipe, "is no shared memory"), (folder, "cannot be opened")):
        with pytest.raises(InvalidInput, match=why):
            table.register("one", file.name, 0, 1)


def test_a_name_is_registered_once(table: Regions, memory: Path) -> None:
    table.register("one", memory.name, 0, 1)
    with pytest.raises(InvalidInput, match='region "one" is registered already; unregister it first'):
        table.register("one", memory.name, 0, 1)
    table.unregister(SystemRegion, "one")
    table.register("one", memory.name, 0, 2)
    assert [region.byte_size for region in table.registered(SystemRegion)] == [2]


def test_regions_are_unregistered_by_name_or_all_at_once(table: Regions, memory: Path) -> None:
    for name in ("a", "b", "c"):
        table.register(name, memory.name, 0, 1)
    table.unregister(SystemRegion, "nobody's")
    table.unregister(SystemRegion, "b")
    assert [region.name for region in table.registered(SystemRegion)] == ["a", "c"]
    with pytest.raises(InvalidInput, match='region "b" is not registered'):
        table.registered(SystemRegion, "b")
    table.unregister(SystemRegion)
    assert table.registered(SystemRegion) == []


def test_there_are_only_so_many(table: Regions, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "MAX_REGIONS", 2)
    for name in ("a", "b"):
        table.register(name, memory.name, 0, 1)
    with pytest.raises(InvalidInput, match="2 regions are registered, which is as many as there may be"):
        table.register("c", memory.name, 0, 1)


def test_they_leave_descriptors_for_connections(table: Regions, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (11, 4096))
    for name in ("a", "b"):
        table.register(name, memory.name, 0, 1)
    with pytest.raises(InvalidInput, match="2 regions are registered, which is as many as there may be"):
        table.register("c", memory.name, 0, 1)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    table.register("c", memory.name, 0, 1)


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_who_holds_an_unregistered_region_still_has_it(table: Regions, memory: Path) -> None:
    before = descriptors()
    table.register("one", memory.name, 0, 100)
    held = table["one"]
    table.unregister(SystemRegion, "one")
    memory.rename(memory.with_name(f"{OURS}elsewhere"))
    assert held.read(0, 2) == b"\0\1" and descriptors() == before + 1
    del held
    assert descriptors() == before


def test_refused_memory_stays_closed(table: Regions, memory: Path) -> None:
    before = descriptors()
    for _ in range(3):
        with pytest.raises(InvalidInput):
            table.register("one", memory.name, 0, 101)
    assert descriptors() == before


def test_memory_that_is_cut_off_harms_nobody(table: Regions, memory: Path) -> None:
    """A map would end this process with SIGBUS here."""
    table.register("one", memory.name, 10, 90)
    os.truncate(memory, 20)
    with pytest.raises(InvalidInput, match='region "one": its shared memory was cut off, 10 of 90 bytes are left'):
        table["one"].read(0, 90)
    assert table["one"].read(0, 10) == bytes(range(10, 20))
    for offset, left in ((9, 1), (80, 0)):
        with pytest.raises(InvalidInput, match=f'region "one": its shared memory was cut off, {left} of 2 bytes are left'):
            table["one"].write(offset, b"xy")
    table["one"].write(8, b"xy")
    assert memory.read_bytes()[17:] == b"\x11xy"


def test_one_name_is_one_registration_from_many_threads(table: Regions, memory: Path) -> None:
    refused: list[Exception] = []
    start = threading.Barrier(8)

    def register() -> None:
        start.wait()
        try:
            table.register("one", memory.name, 0, 1)
        except InvalidInput as error:
            refused.append(error)

    threads = [threading.Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(refused) == 7 and len(table.registered(SystemRegion)) == 1


def test_off_is_told_with_the_way_on() -> None:
    off = Regions()
    calls = (
        lambda: off.register("one", "key", 0, 1),
        lambda: off.unregister(SystemRegion),
        lambda: off.registered(SystemRegion),
        lambda: off["one"],
    )
    for call in calls:
        with pytest.raises(NotOffered, match=r"system shared memory is off; .* tensign serve --shared-memory NAMES"):
            call()
    with pytest.raises(NotOffered, match=r"CUDA shared memory is off; .* tensign serve --cuda-shared-memory"):
        Regions(("*",)).register_on_device("one", bytes(64), 0, 1)
    with pytest.raises(NotOffered, match="CUDA shared memory is off"):
        Regions(("*",)).unregister(DeviceRegion)


@pytest.mark.parametrize("key", ["", "/", "a/b", "a*b", "../a", "**", "//a"])
def test_an_operator_allows_plain_names(key: str) -> None:
    with pytest.raises(InvalidConfig, match="shared_memory: wanted names"):
        ServerConfig(shared_memory=("fine", key))


def test_an_operator_allows_names_and_beginnings() -> None:
    assert ServerConfig(shared_memory=("a", "/b", "c-*", "*")).shared_memory
