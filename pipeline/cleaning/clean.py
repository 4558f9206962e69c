"""A document's text to clean text, and long ones to parts. Pure; judging is the filters'."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from pipeline.cleaning import docstring
from pipeline.cleaning.boilerplate import without_boilerplate
from pipeline.cleaning.normalise import normalise, repaired, unwrapped
from pipeline.config import Cleaning


class Cleaned(NamedTuple):
    """A clean text, and how many lines of boilerplate were removed from it."""

    text: str
    boilerplate_lines: int


def clean(text: str, markup: str, cleaning: Cleaning) -> Cleaned:
    """Repair, strip and normalise one text, in time linear in its length."""
    removed = 0
    if cleaning.repair_unicode:
        text = repaired(text)
    if cleaning.boilerplate:
        text, removed = without_boilerplate(text)
    if markup == "docstring":
        text = docstring.prose(text)
    elif cleaning.lines == "join":
        text = unwrapped(text)
    return Cleaned(normalise(text), removed)


# Where a text may be cut, the best first: the end of a paragraph, of a sentence that ends its line,
# of a sentence, of a word.
_STOP = r"[.!?…؟۔।॥။።][\"'”’»)\]]*(?=\s)|[。！？｡．][」』”’）]*"
_CUTS = [re.compile(pattern) for pattern in (r"\n\n", rf"(?:{_STOP})(?=\n)", _STOP, r"(?=\s)")]


def in_parts(text: str, most: int) -> list[str]:
    """A clean text in parts of at most `most` characters, about as many as that asks for.

    A part is at least a quarter of `most` long, before white space goes from its ends.
    """
    parts: list[str] = []
    start = 0
    while (left := len(text) - start) > most:
        even = -(-left // -(-left // most))
        end = _cut(text, start + even // 2, start + even)
        parts.append(text[start:end].strip())
        start = end
    return [part for part in (*parts, text[start:].strip()) if part] or [text]


def _cut(text: str, low: int, high: int) -> int:
    """The last best place for a cut, over `low` and up to `high`."""
    for pattern in _CUTS:
        # one character more, so that what must follow a cut can be seen
        ends = [m.end() for m in pattern.finditer(text, low, high + 1) if low < m.end() <= high]
        if ends:
            return ends[-1]
    while high > low + 1 and unicodedata.category(text[high])[0] == "M":
        high -= 1  # a mark stays with its letter
    return high
