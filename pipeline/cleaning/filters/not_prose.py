"""Texts of numbers and signs: tables, code, lists of prices."""

import string
from dataclasses import dataclass

import numpy as np

from pipeline.characters import LETTER, MARK, kinds_of, non_ascii

_ASCII_LETTERS = string.ascii_letters.encode()


@dataclass(kw_only=True)
class Filter:
    """Drops texts of which less than `min_alphabetic` are letters, white space apart."""

    min_alphabetic: float

    def drops(self, text: str) -> bool:
        """Whether the share of letters is smaller."""
        visible = len("".join(text.split()))
        return letters(text) < self.min_alphabetic * visible


def letters(text: str) -> int:
    """Number of letters and of the marks on them, which some scripts write most vowels as."""
    raw = text.encode(errors="replace")
    found = len(raw) - len(raw.translate(None, _ASCII_LETTERS))
    if not text.isascii():
        _, codes = non_ascii(np.frombuffer(raw, np.uint8))
        kinds = kinds_of(codes)
        found += int(((kinds >= LETTER) & (kinds <= MARK)).sum())
    return found
