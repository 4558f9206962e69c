"""Word n-grams of a text as 64-bit numbers, in numpy: the same on any machine and in any process.

A word is a run of letters, digits and non-ASCII characters, in lower case. An n-gram's number is a
polynomial hash (mod 2^64) of its UTF-8 bytes, words parted by one blank, taken from prefix sums:
H[end] − H[start], divided by the power of the start; then mixed, so that every bit counts.
"""

from __future__ import annotations

import numpy as np

_BASE = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_BASE, -1, 2**64)
_BLANK = 32
_CHARACTER = np.array(
    [b if b >= 128 or chr(b).isalnum() else _BLANK for b in range(256)], dtype=np.uint8
)


class Words:
    """The words of one text; `ngrams(n)` as often as one likes."""

    def __init__(self, text: str) -> None:
        raw = _CHARACTER[np.frombuffer(text.lower().encode(errors="replace"), np.uint8)]
        letters = raw != _BLANK
        after = np.zeros(len(raw), bool)
        after[1:] = letters[:-1]
        self._bytes = raw[letters | after]  # one blank behind each word
        ends = np.flatnonzero(self._bytes == _BLANK)
        if len(self._bytes) and self._bytes[-1] != _BLANK:
            ends = np.append(ends, len(self._bytes))
        self._ends = ends
        self._starts = np.concatenate([np.zeros(1, ends.dtype), ends[:-1] + 1])[: len(ends)]
        powers, self._inverses = _powers(len(self._bytes) + 1)
        self._sums = np.zeros(len(self._bytes) + 1, np.uint64)
        np.cumsum((self._bytes.astype(np.uint64) + 1) * powers[:-1], out=self._sums[1:])

    def __len__(self) -> int:
        return len(self._ends)

    def ngrams(self, n: int) -> np.ndarray:
        """uint64 [max(words − n + 1, 0)]: a number for each n words in a row, in their order."""
        count = max(len(self) - n + 1, 0)
        starts, ends = self._starts[:count], self._ends[n - 1 : n - 1 + count]
        return _mixed((self._sums[ends] - self._sums[starts]) * self._inverses[starts])


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


_table = np.ones((2, 1), np.uint64)


def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` powers of the base and of its inverse; the table grows by doubling."""
    global _table
    while _table.shape[1] < count:
        size = _table.shape[1]
        factors = [[pow(base, size, 2**64)] for base in (_BASE, _INVERSE)]
        _table = np.concatenate([_table, _table * np.array(factors, np.uint64)], axis=1)
    return _table[0, :count], _table[1, :count]
