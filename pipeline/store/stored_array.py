"""An array in a file: its rows are read when they are asked for."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from functools import cached_property, lru_cache
from math import isqrt, prod

import numpy as np

_HEAD_BYTES = 4096  # read at first: the header, and all of a small array

# numpy reads a header with Python's parser, which raises SystemError in CPython 3.11 when two
# threads parse at once: it counts its depth for all of them together.
reading_header = threading.Lock()


def array_in(content: bytes) -> np.ndarray:
    """The array in the bytes of an .npy file, which can't be written to."""
    file = io.BytesIO(content)
    shape, dtype = _read_header(file)
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)


def _read_header(file: io.BytesIO) -> tuple[tuple[int, ...], np.dtype]:
    np.lib.format.read_magic(file)
    with reading_header:
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)  # np.save's
    return shape, dtype


@lru_cache
def begin_of_rows(dtype: np.dtype) -> int:
    """Where the rows begin in the .npy file of a one-dimensional array, however many they are.

    numpy leaves room in the header for the number of rows to grow.
    """
    file = io.BytesIO()
    np.save(file, np.empty(0, dtype))
    return file.tell()


class StoredArray:
    """An .npy file of which `array[start:stop]` reads these rows alone.

    `array[numbers]` reads the rows from the smallest to the largest number; `array["field"]` and
    numpy's functions read all of it, once.

    Args:
        read: gives the bytes of the file from `start` to `stop`, fewer where it ends before.
    """

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._head = read(0, _HEAD_BYTES)
        file = io.BytesIO(self._head)
        self.shape, self.dtype = _read_header(file)
        self._begin = file.tell()

    @cached_property
    def _all(self) -> np.ndarray:
        return self[:]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | np.ndarray | str) -> np.ndarray:
        if isinstance(key, str):
            field: np.ndarray = self._all[key]
            return field
        if isinstance(key, np.ndarray):
            if not len(key):
                return self[:0]
            first = int(key.min())
            return self[first : int(key.max()) + 1][key.astype(np.int64) - first]
        start, stop, _ = key.indices(len(self))
        row_bytes = self.dtype.itemsize * prod(self.shape[1:])
        first = self._begin + start * row_bytes
        end = self._begin + max(start, stop) * row_bytes
        is_known = end <= max(first, len(self._head))  # no range of a request is empty
        content = self._head[first:end] if is_known else self._read(first, end)
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._all, dtype)


def rows_between(array: StoredArray, field: str, low: int, high: int) -> np.ndarray:
    """The rows whose `field` is in [low, high], of an array that is sorted by it.

    The field holds hashes, uint64, spread evenly but for equal ones. So where they lie is known to
    within some square roots of their number, and little more than these rows is read.
    """
    count = len(array)
    margin = 4 * isqrt(count) + 16
    while True:
        start = max(0, count * low // 2**64 - margin)
        stop = min(count, count * (high + 1) // 2**64 + margin)
        rows = np.array(array[start:stop])
        hashes = np.ascontiguousarray(rows[field])
        begins = start == 0 or hashes[0] < low
        ends = stop == count or hashes[-1] > high
        if begins and ends:
            first = np.searchsorted(hashes, np.uint64(low), "left")
            return rows[first : np.searchsorted(hashes, np.uint64(high), "right")]
        margin *= 4
