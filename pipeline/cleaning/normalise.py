"""White space, Unicode's forms, and text that was decoded with a wrong encoding."""

from __future__ import annotations

import re
import unicodedata

from pipeline.characters import BREAK_WITHOUT_BLANK

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff\ufffe\uffff\ud800-\udfff]")
_BLANKS = re.compile(r"[^\S\n]{2,}|[^\S\n ]")  # all but single blanks, which are most
_PARAGRAPHS = re.compile(r"\n\s*\n")
_TWO_NON_ASCII = re.compile(r"[^\x00-\x7f]{2}")  # text decoded wrongly always has some
_MOST_MARKS = 30  # on one letter, as in UAX #15's stream-safe format: no language has more
_MANY_MARKS = re.compile(rf"[^\w\x00-\u02ff]{{{_MOST_MARKS + 1},}}")


def normalise(text: str) -> str:
    """Unicode NFC, no control characters, single blanks, no blank lines more than one."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():  # putting marks in order takes the square of their number
        text = unicodedata.normalize("NFC", _MANY_MARKS.sub(_fewer_marks, text))
    text = _BLANKS.sub(" ", _CONTROL.sub("", text))
    lines = [line.strip() for line in text.split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]
    return "\n".join(kept).strip()


def _fewer_marks(found: re.Match[str]) -> str:
    kept: list[str] = []
    run = 0
    for character in found[0]:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= _MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def unwrapped(text: str) -> str:
    """One line per paragraph: other line breaks are those of the source file."""
    blocks = [block.strip() for block in _PARAGRAPHS.split(text)]
    return "\n\n".join(
        " ".join(BREAK_WITHOUT_BLANK.sub("", block).split()) for block in blocks if block
    )


def repaired(text: str) -> str:
    """The text with lines repaired that were decoded with a wrong encoding."""
    if text.isascii() or not _TWO_NON_ASCII.search(text):
        return text
    from ftfy import fix_encoding

    lines = text.split("\n")
    return "\n".join(fix_encoding(x) if _TWO_NON_ASCII.search(x) else x for x in lines)
