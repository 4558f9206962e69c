"""The space of 64-bit hashes in equal parts, each small enough for one worker's memory."""

from __future__ import annotations

import numpy as np

from pipeline.store.stored_array import StoredArray, rows_between

RECORDS = 16_000_000  # in one part, about
_FEW_RECORDS = 250_000  # in one part of a small corpus, which isn't worth more reads
_WORKERS = 8  # parts that a corpus has at least, once it isn't small


def parts(records: int) -> int:
    """In how many parts to take the hash space of so many records."""
    return max(1, min(_WORKERS, -(-records // _FEW_RECORDS)), -(-records // RECORDS))


def rows_of_part(array: StoredArray, field: str, part: int, of: int) -> np.ndarray:
    """The rows whose hash `field` is in one part, of an array that is sorted by it."""
    low = part * 2**64 // of
    high = (part + 1) * 2**64 // of - 1
    return rows_between(array, field, low, high)
