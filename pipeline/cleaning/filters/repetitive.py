"""Texts that repeat lines or word n-grams, by Gopher's rules (Rae et al. 2021, table A1).

The rules for n-grams take shares of words where Gopher's take shares of characters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.dedup.shingles import Words
from pipeline.sections import Repetition


@dataclass(kw_only=True)
class Filter(Repetition):
    """Drops texts whose lines or n-grams repeat themselves more than the limits allow."""

    def drops(self, text: str) -> bool:
        """Whether a limit is passed."""
        lines = [line for line in text.split("\n") if line]
        again = len(lines) - len(set(lines))
        if again > self.max_duplicate_lines * len(lines):
            return True
        words = Words(text)
        for n, share in self.max_top_ngram.items():
            grams = words.ngrams(n)
            if len(grams) and _most_frequent(grams) * n > share * words.weight:
                return True
        return any(
            _words_in_repeats(words, n) > share * words.weight
            for n, share in self.max_duplicate_ngrams.items()
        )


def _most_frequent(grams: np.ndarray) -> int:
    """How often the most frequent n-gram occurs; 0 when none does twice."""
    ordered = np.sort(grams)
    edges = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1], append=~ordered[-1:]))
    most = int(np.diff(edges).max())
    return most if most > 1 else 0


def _words_in_repeats(words: Words, n: int) -> float:
    """Number of words that stand in an n-gram which has occurred before."""
    grams = words.ngrams(n)
    order = np.argsort(grams, kind="stable")
    ordered = grams[order]
    again = order[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return 0
    change = np.zeros(len(words) + 1, np.int32)
    np.add.at(change, again, 1)
    np.add.at(change, words.stops(n)[again], -1)
    return words.weight_of(np.cumsum(change[:-1]) > 0)
