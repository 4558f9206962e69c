"""Word n-grams of a text as 64-bit numbers, in numpy: the same on any machine and in any process.

A word is a run of letters, marks and digits, without case; in a script without blanks between words
(`pipeline/characters.py`) each character is one, and counts as half a word: an n-gram that begins
with it extends until it has `n` words. Everything else separates words.

An n-gram's number is a polynomial hash (mod 2^64) of its UTF-8 bytes, words separated by one blank,
taken from prefix sums: H[end] − H[start], divided by the power of the start; then mixed, so that
every bit counts. Nothing is shared between texts, so threads don't meet.
"""

from __future__ import annotations

import numpy as np

from pipeline.characters import CHARACTER, FORMAT, MARK, SEPARATOR, kinds_of, non_ascii

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)
_BLANK = 32
_SHOWN = np.array(
    [b if b >= 128 or chr(b).isalnum() else _BLANK for b in range(256)], dtype=np.uint8
)
_BLOCK = 1 << 16


def _powers_of(base: int, count: int) -> np.ndarray:
    """uint64 [count]: base^0, base^1, …"""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


# The powers up to a block's length, and the next one: most texts need no more.
_POWERS = _powers_of(_BASE, _BLOCK), pow(_BASE, _BLOCK, 2**64)
_INVERSE_POWERS = _powers_of(_INVERSE, _BLOCK), pow(_INVERSE, _BLOCK, 2**64)


class Words:
    """The words of one text; `ngrams(n)` as often as one likes.

    `weight` is the number of words, where a character of a script without blanks counts half.
    """

    def __init__(self, text: str) -> None:
        raw = np.frombuffer(f"{text} ".casefold().encode(errors="replace"), np.uint8)
        shown = _SHOWN[raw]
        alone: np.ndarray | None = None  # what stands for a word by itself, or goes with that
        if not text.isascii():
            shown, alone = _in_any_script(raw, shown)
        within = shown != _BLANK
        kept = within.copy()
        kept[1:] |= within[:-1]  # one blank behind each word
        shown = shown[kept]
        self._halves: np.ndarray | None = None
        if alone is None:
            self._ends = np.flatnonzero(shown == _BLANK)
            self._starts = np.zeros_like(self._ends)
            np.add(self._ends[:-1], 1, out=self._starts[1:])
            self.weight = float(len(self._ends))
        else:
            shown, self._starts, self._ends, self._halves = _characters(shown, alone[kept])
            self.weight = float(self._halves.sum()) / 2
        terms = shown.astype(np.uint64)
        terms += np.uint64(1)
        terms *= _first(_POWERS, len(shown))
        self._sums = np.zeros(len(shown) + 1, np.uint64)
        np.cumsum(terms, out=self._sums[1:])
        self._inverses = _first(_INVERSE_POWERS, len(shown))[self._starts]

    def __len__(self) -> int:
        return len(self._ends)

    def weight_of(self, which: np.ndarray) -> float:
        """Number of words among those where bool [len(self)] is true; characters count half."""
        return float(which.sum() if self._halves is None else self._halves[which].sum() / 2)

    def stops(self, n: int) -> np.ndarray:
        """int64 [n-grams]: position behind the last word of each n-gram; the first begins at 0."""
        if self._halves is None:
            return np.arange(n, len(self) + 1)
        after = np.cumsum(self._halves)
        wanted = after - self._halves + 2 * n
        return (
            np.searchsorted(after, wanted[: np.searchsorted(wanted, 2 * self.weight, "right")]) + 1
        )

    def ngrams(self, n: int) -> np.ndarray:
        """uint64 [n-grams]: a number for the `n` words from each word on, in their order."""
        ends = self._ends[n - 1 :] if self._halves is None else self._ends[self.stops(n) - 1]
        count = len(ends)
        sums = self._sums[ends] - self._sums[self._starts[:count]]
        return mixed(sums * self._inverses[:count])


def _in_any_script(raw: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """`shown` with a blank for every separator, and without what only says how text is shown.

    And uint8 [bytes]: CHARACTER at the first byte of a character that stands alone, MARK at its
    other bytes and marks, 0 elsewhere; None where there is no such character.
    """
    positions, codes = non_ascii(raw)
    kinds = kinds_of(codes)
    of_kind = np.bincount(kinds, minlength=FORMAT + 1).tolist()
    kinds_of_bytes = np.repeat(kinds, 2 + (codes >= 0x800) + (codes >= 0x10000))
    shown[positions[kinds_of_bytes == SEPARATOR]] = _BLANK
    alone: np.ndarray | None = None
    if of_kind[CHARACTER] or of_kind[MARK]:
        alone = np.zeros(len(raw), np.uint8)
        alone[positions] = np.where(kinds_of_bytes >= CHARACTER, np.uint8(MARK), np.uint8(0))
        leads = positions[raw[positions] >= 0xC0]
        alone[leads[kinds == CHARACTER]] = CHARACTER
    if of_kind[FORMAT]:
        stays = np.ones(len(raw), bool)
        stays[positions[kinds_of_bytes == FORMAT]] = False
        shown = shown[stays]
        alone = None if alone is None else alone[stays]
    return shown, alone


def _characters(
    shown: np.ndarray, alone: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bytes, and starts, ends and half words of the words, where some characters stand alone.

    Blanks beside such a character say nothing, and go.
    """
    spaced = (alone == 0) & (shown != _BLANK)
    between = np.zeros(len(shown), bool)
    between[1:-1] = spaced[:-2] & spaced[2:]
    kept = (shown != _BLANK) | between
    shown, alone, spaced = shown[kept], alone[kept], spaced[kept]
    begins = alone == CHARACTER
    begins[1:] |= spaced[1:] & ~spaced[:-1]
    begins[:1] = True
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(shown))
    ends -= shown[ends - 1] == _BLANK
    return shown, starts, ends, np.where(spaced[starts], 2, 1)


def _first(powers: tuple[np.ndarray, int], count: int) -> np.ndarray:
    """uint64 [count]: the first of some powers, made of those of a block and of whole blocks."""
    block, next_power = powers
    if count <= _BLOCK:
        return block[:count]
    blocks = _powers_of(next_power, -(-count // _BLOCK))
    return np.multiply.outer(blocks, block).reshape(-1)[:count]


def mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
