"""The buffers in which rows of several requests become one contiguous batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.devicememory import DeviceArray
from tensign.request import Outputs, Part


class Slots:
    """Contiguous buffers that batches are gathered in, kept for the kind of rows seen last.

    empty: makes one, of memory that the engine reads where it lies.
    """

    def __init__(self, empty: Callable[[tuple[int, ...], Any], npt.NDArray[Any]] = np.empty) -> None:
        self._empty = empty
        self._kind: tuple[Any, ...] | None = None
        self._rows = 0
        self._buffers: dict[str, npt.NDArray[Any]] = {}

    def gather(self, parts: list[Part], bucket: int) -> Outputs:
        """{name: [bucket,...]}, each row written once; rows that fill a bucket alone are not copied at all.

        Rows on a device are only counted: its engine gathers them.
        """
        first = parts[0]
        if len(parts) == 1 and first.rows == bucket:
            return {name: array[first.start : first.stop] for name, array in first.request.arrays.items()}
        if self._kind != first.request.kind or self._rows < bucket:
            self._kind, self._rows = first.request.kind, bucket
            self._buffers = {
                name: self._empty((bucket, *array.shape[1:]), array.dtype)
                for name, array in first.request.arrays.items()
                if not isinstance(array, DeviceArray)
            }
        for name, buffer in self._buffers.items():
            row = 0
            for part in parts:
                buffer[row : row + part.rows] = part.request.arrays[name][part.start : part.stop]
                row += part.rows
            for at in range(row, bucket):  # one by one, for a list in a cell would be spread over them
                buffer[at] = buffer[row - 1]  # never what an earlier caller left: it might make the model fail
        return {
            name: self._buffers[name][:bucket] if name in self._buffers else _gathered(name, parts, bucket)
            for name in first.request.arrays
        }


def _gathered(name: str, parts: list[Part], bucket: int) -> Any:
    arrays: list[Any] = [part.request.arrays[name][part.start : part.stop] for part in parts]
    return DeviceArray.gathered(arrays, bucket)
