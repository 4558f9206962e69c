"""What a character is to the rules that count letters and words, in any script.

Most scripts put blanks between words. Chinese, Japanese, Thai, Lao, Khmer and Burmese don't: there
each character, with the marks on it, stands alone, as in Unicode's default word boundaries
(UAX #29).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np

# Kinds of characters. Combining marks of other scripts than those without blanks are letters.
SEPARATOR, DIGIT, LETTER, CHARACTER, MARK, FORMAT = range(6)

# Scripts without blanks between words: what UAX #14 breaks by dictionary, Han, kana and Bopomofo.
_WITHOUT_BLANKS = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai and Lao, Burmese, Khmer
    *((0x1950, 0x19DF), (0x1A20, 0x1AAF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF)),  # Tai, Shan
    *((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x303C), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
    *((0x3041, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F)),
    *((0x16FE0, 0x18DFF), (0x1AFF0, 0x1B2FF), (0x20000, 0x33FFF)),
)
_VARIATION_SELECTORS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_ASSIGNED = 0x34000  # behind it are only variation selectors, tags and private characters
_CLASS = "".join(f"{chr(first)}-{chr(last)}" for first, last in _WITHOUT_BLANKS)
_CLASS += "\u3001-\u303f\uff01-\uff65"  # with their punctuation
# A line break that stands for no blank, as those between words do in other scripts.
BREAK_WITHOUT_BLANK = re.compile(rf"(?<=[{_CLASS}])[^\S\n]*\n\s*+(?=[{_CLASS}])")


def non_ascii(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the characters that aren't ASCII stand in uint8 [bytes] of UTF-8, and what they are.

    int64 [their bytes] positions, and uint32 [characters] code points.
    """
    positions = np.flatnonzero(raw >= 0x80)
    found = raw[positions].tobytes().decode()
    return positions, np.frombuffer(found.encode("utf-32-le"), "<u4")


def kinds_of(codes: np.ndarray) -> np.ndarray:
    """uint8 [characters]: the kinds of code points."""
    return _kinds().take(codes, mode="clip")


@cache
def _kinds() -> np.ndarray:
    """uint8: the kind of every code point; the last entry is that of all behind it."""
    kinds = np.zeros(_VARIATION_SELECTORS[-1][1] + 2, np.uint8)
    by_category = {"L": LETTER, "M": LETTER, "N": DIGIT}
    for code in range(_ASSIGNED):
        category = unicodedata.category(chr(code))
        kinds[code] = FORMAT if category == "Cf" else by_category.get(category[0], SEPARATOR)
    for first, last in _WITHOUT_BLANKS:
        for code in range(first, last + 1):
            category = unicodedata.category(chr(code))
            if category[0] == "L" or category == "Nl":
                kinds[code] = CHARACTER
            elif category[0] == "M":
                kinds[code] = MARK
    for first, last in _VARIATION_SELECTORS:
        kinds[first : last + 1] = FORMAT
    return kinds
