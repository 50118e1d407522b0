"""Regions of shared memory, by the names that clients registered them under.

A region of the system's is an open file, not a map: whoever touches a page of a map that its owner has cut off since is killed
by SIGBUS, and a map changes between the check and the use of what it holds. Reading 270 kB costs 15 us more than a view.
"""

from __future__ import annotations

import os
import resource
import stat
import threading
import weakref
from collections.abc import Callable, Collection

from tensign.devicememory import DeviceMemory, DeviceRegion
from tensign.errors import InvalidInput, NotAllowed, NotOffered

FOLDER = "/dev/shm"
MAX_REGIONS = 1024
_MAX_NAME = 256
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # neither through a link, nor waiting at a pipe


class SystemRegion:
    """Bytes offset to offset + byte_size of a POSIX shared memory object, open as long as anybody holds this object."""

    def __init__(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Raises InvalidInput where there is no such object, or it ends before the region does."""
        self.name, self.key, self.offset, self.byte_size = name, key, offset, byte_size
        try:
            self._file = os.open(os.path.join(FOLDER, _plain(key)), _FLAGS)
        except OSError as error:
            raise InvalidInput(f'region "{name}": shared memory "{key}" cannot be opened: {error.strerror}') from None
        weakref.finalize(self, os.close, self._file)
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput(f'region "{name}": "{key}" is no shared memory')
        if offset + byte_size > found.st_size:
            raise InvalidInput(
                f'region "{name}": {byte_size} bytes from {offset} on end behind shared memory "{key}", of {found.st_size}'
            )

    def read(self, offset: int, size: int) -> bytes:
        """A copy: nobody changes it any more. Raises InvalidInput where the memory was cut off since."""
        try:
            content = os.pread(self._file, size, self.offset + offset)
        except OSError as error:
            raise InvalidInput(f'region "{self.name}" cannot be read: {error.strerror}') from None
        self._check_left(len(content), size)
        return content

    def write(self, offset: int, content: bytes) -> None:
        """Raises InvalidInput where the memory was cut off since, which writing would make grow, or the system refuses it."""
        self._check_left(os.fstat(self._file).st_size - self.offset - offset, len(content))
        try:
            written = os.pwrite(self._file, content, self.offset + offset)
        except OSError as error:
            raise InvalidInput(f'region "{self.name}" cannot be written: {error.strerror}') from None
        if written < len(content):
            raise InvalidInput(f'region "{self.name}" cannot be written: no memory is left for it')

    def _check_left(self, left: int, size: int) -> None:
        if left < size:
            raise InvalidInput(f'region "{self.name}": its shared memory was cut off, {max(left, 0)} of {size} bytes are left')


Region = SystemRegion | DeviceRegion


class Regions:
    """The table, safe from any number of threads.

    keys: what may be registered of the system's, names or, with a star behind, how they begin; none is off. memory: opens
    that of devices, None is off; devices: of which.
    """

    def __init__(
        self, keys: Collection[str] = (), memory: Callable[[], DeviceMemory] | None = None, devices: Collection[str] = ()
    ) -> None:
        self._keys = keys
        self._memory, self._devices = memory, devices
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    @property
    def kinds(self) -> tuple[type[Region], ...]:
        """Those that are switched on."""
        return (*((SystemRegion,) if self._keys else ()), *((DeviceRegion,) if self._memory else ()))

    def __getitem__(self, name: str) -> Region:
        if not self.kinds:
            self._check_on(SystemRegion)
        try:
            return self._regions[name]
        except KeyError:
            raise InvalidInput(f'region "{name[:64]}" is not registered; register it first') from None

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Of the system's. Raises NotOffered, NotAllowed, InvalidInput."""
        self._check_on(SystemRegion)
        with self._lock:
            self._check_new(name, byte_size)
            if not is_plain(key):
                raise InvalidInput(f'region "{name}": expected the plain name of shared memory as its key, got {key[:64]!a}')
            if not any(_allows(allowed, _plain(key)) for allowed in self._keys):
                raise NotAllowed(
                    f'region "{name}": key {key[:64]!a} is not among those that --shared-memory of the server allows'
                )
            self._regions[name] = SystemRegion(name, key, offset, byte_size)

    def register_on_device(self, name: str, handle: bytes, index: int, byte_size: int) -> None:
        """Raises NotOffered, ProviderUnavailable, InvalidInput."""
        self._check_on(DeviceRegion)
        assert self._memory is not None
        with self._lock:
            self._check_new(name, byte_size)
            if f"cuda:{index}" not in self._devices:
                there = ", ".join(sorted(self._devices)) or "no device"
                raise InvalidInput(f'region "{name}": no model takes rows from the memory of device {index}, but of {there}')
            self._regions[name] = DeviceRegion(self._memory(), name, index, handle, byte_size)

    def unregister(self, kind: type[Region], name: str = "") -> None:
        """One of that kind, or all. Nothing where there is none; requests that use one keep it until they are answered."""
        self._check_on(kind)
        with self._lock:
            for one in [one for one in self._regions.values() if isinstance(one, kind) and name in ("", one.name)]:
                del self._regions[one.name]

    def registered(self, kind: type[Region], name: str = "") -> list[Region]:
        """That one, or all of the kind. Raises InvalidInput where there is none of that name."""
        self._check_on(kind)
        with self._lock:
            found = [one for one in self._regions.values() if isinstance(one, kind) and name in ("", one.name)]
        if name and not found:
            raise InvalidInput(f'region "{name[:64]}" is not registered')
        return found

    def close(self) -> None:
        """Forgets all of them."""
        with self._lock:
            self._regions.clear()

    def _check_on(self, kind: type[Region]) -> None:
        if kind not in self.kinds:
            what, option = _SWITCHES[kind]
            raise NotOffered(f"{what} is off; the operator switches it on with tensign serve {option}")

    def _check_new(self, name: str, byte_size: int) -> None:
        if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise InvalidInput(f"expected a name of 1 to {_MAX_NAME} printable letters for a region, got {name[:64]!a}")
        if name in self._regions:
            raise InvalidInput(f'region "{name}" is registered already; unregister it first')
        if not byte_size:
            raise InvalidInput(f'region "{name}": expected at least 1 byte, got 0')
        if len(self._regions) >= (most := _most()):
            raise InvalidInput(f"{most} regions are registered, which is as many as there may be; unregister one first")


_SWITCHES: dict[type[Region], tuple[str, str]] = {
    SystemRegion: ("system shared memory", "--shared-memory NAMES"),
    DeviceRegion: ("CUDA shared memory", "--cuda-shared-memory"),
}


def _most() -> int:
    """Each is a descriptor, of which most are for connections."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_REGIONS if allowed == resource.RLIM_INFINITY else min(MAX_REGIONS, allowed // 4)


def is_plain(key: str) -> bool:
    """Whether a key is one name, with or without the slash that POSIX wants before it."""
    name = _plain(key)
    return 0 < len(name.encode()) <= 255 and name.isprintable() and "/" not in name and name not in (".", "..")


def _plain(key: str) -> str:
    return key.removeprefix("/")


def _allows(allowed: str, name: str) -> bool:
    allowed = _plain(allowed)
    return name.startswith(allowed[:-1]) if allowed.endswith("*") else name == allowed
