"""Rows that lie in the memory of a device: regions that a client shares, and arrays in them, told by address and never read."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tensign.errors import InvalidInput

HANDLE_BYTES = 64  # of a cudaIpcMemHandle_t

Copy = tuple[int, int, int]  # to, from, bytes


class DeviceMemory(Protocol):
    """What has to be asked of the devices' runtime; index: which device."""

    def open_region(self, index: int, handle: bytes) -> tuple[int, int]:
        """Address of another process's memory, and its bytes from there on. Raises InvalidInput."""

    def close_region(self, index: int, address: int) -> None:
        """Gives up what `open_region` gave."""

    def copy(self, index: int, copies: Sequence[Copy]) -> None:
        """Between addresses of the device, or of it and the host; done when it returns."""


class DeviceRegion:
    """A part of a device's memory that a client has let us into, for as long as anybody holds this object."""

    def __init__(self, memory: DeviceMemory, name: str, index: int, handle: bytes, byte_size: int) -> None:
        """Raises InvalidInput where the handle is none, or its memory is smaller than byte_size."""
        if len(handle) != HANDLE_BYTES:
            raise InvalidInput(f'region "{name}": expected a raw_handle of {HANDLE_BYTES} bytes, got {len(handle)}')
        self.name, self.index, self.byte_size = name, index, byte_size
        self._memory = memory
        self._address, there = memory.open_region(index, handle)
        weakref.finalize(self, memory.close_region, index, self._address)
        if byte_size > there:
            raise InvalidInput(f'region "{name}": {byte_size} bytes are more than the {there} that its handle is for')

    @property
    def device(self) -> str:
        """As engines name theirs."""
        return f"cuda:{self.index}"

    def read(self, offset: int, size: int) -> DeviceArray:
        """uint8 [size], of which nothing is read."""
        return DeviceArray(((self, self._address + offset, size),), (size,), np.dtype(np.uint8))

    def write(self, offset: int, content: bytes) -> None:
        """Raises what the runtime raises."""
        if content:
            host = np.frombuffer(content, np.uint8)
            self._memory.copy(self.index, [(self._address + offset, host.ctypes.data, len(content))])

    def copy(self, copies: Sequence[Copy]) -> None:
        """Within its device, from this region or another one."""
        self._memory.copy(self.index, copies)


Block = tuple[DeviceRegion, int, int]  # whose it is, address, bytes


class DeviceArray:
    """[n,...] in blocks of rows on one device: the dtype, shape and slices of a numpy array, without values."""

    def __init__(self, blocks: Sequence[Block], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._blocks = tuple(blocks)
        self.shape, self.dtype = shape, dtype

    @classmethod
    def gathered(cls, arrays: Sequence[DeviceArray], rows: int) -> DeviceArray:
        """The rows of all of them, and their last one again until there are so many."""
        last = arrays[-1][-1:]
        blocks = [block for array in arrays for block in array._blocks]
        blocks += last._blocks * (rows - sum(map(len, arrays)))
        return cls(blocks, (rows, *last.shape[1:]), last.dtype)

    @property
    def device(self) -> str:
        """As engines name theirs."""
        return self._blocks[0][0].device

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Some of the rows, of an array that is one block."""
        ((region, address, size),) = self._blocks
        start, stop, _ = rows.indices(len(self))
        row = size // len(self)
        return DeviceArray([(region, address + start * row, (stop - start) * row)], (stop - start, *self.shape[1:]), self.dtype)

    def viewed(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> DeviceArray:
        """The same bytes as something else. Raises InvalidInput where they are more or fewer, or have to be looked at."""
        if dtype.kind in "bO":
            raise InvalidInput(
                f"{'BOOL' if dtype.kind == 'b' else 'BYTES'} in CUDA shared memory: expected numbers, for the host reads"
                " nothing there; send it raw or in system shared memory"
            )
        wanted, (_, _, size) = math.prod(shape) * dtype.itemsize, self._blocks[0]
        if wanted != size:
            raise InvalidInput(f"{dtype} {list(shape[:8])} takes {wanted} bytes, shared_memory_byte_size is {size}")
        return DeviceArray(self._blocks, shape, dtype)

    def copy_to(self, address: int) -> None:
        """All rows behind each other, at an address on the same device."""
        copies: list[Copy] = []
        for _, begins, size in self._blocks:
            copies.append((address, begins, size))
            address += size
        self._blocks[0][0].copy(copies)


def on_device(inputs: Any, device: str) -> list[str]:
    """Names of the inputs that lie on a device. Raises InvalidInput where it is not that one, "" being none."""
    named = inputs.items() if isinstance(inputs, Mapping) else ()
    found = {str(name): array for name, array in named if isinstance(array, DeviceArray)}
    for name, array in found.items():
        if array.device != device:
            raise InvalidInput(
                f'input "{name[:64]}": lies on {array.device}; this model takes rows from {device or "the host"} alone'
            )
    return list(found)
