import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.characters import (
    BREAK_WITHOUT_BLANK,
    CHARACTER,
    DIGIT,
    FORMAT,
    LETTER,
    MARK,
    SEPARATOR,
    kinds_of,
    non_ascii,
)

regex = pytest.importorskip("regex")


def test_kinds_are_those_of_unicode() -> None:
    """Against the property tables of another library, for all of the Basic Multilingual Plane."""
    text = "".join(map(chr, range(0x80, 0xD800))) + chr(0x20000) + chr(0x1F600)
    in_words = set(regex.findall(r"[\p{L}\p{M}\p{N}]", text))
    unassigned = set(regex.findall(r"\p{Cn}", text))
    without_blanks = set(
        regex.findall(
            r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]",
            text,
        )
    )
    kinds = kinds_of(np.array([ord(character) for character in text])).tolist()
    for character, kind in zip(text, kinds, strict=True):
        category = unicodedata.category(character)
        if character in unassigned or category == "Cn":
            continue  # the two know different versions of Unicode
        if category == "Cf":
            assert kind == FORMAT
        elif character not in in_words:
            assert kind == SEPARATOR, hex(ord(character))
        elif character in without_blanks and character.isalpha():
            assert kind == CHARACTER, hex(ord(character))
        else:
            assert kind in (DIGIT, LETTER, CHARACTER, MARK), hex(ord(character))
    assert set(kinds_of(np.array([ord(character) for character in "ßжहि한عא"]))) == {LETTER}


def test_a_line_break_between_characters_without_blanks_is_none() -> None:
    assert BREAK_WITHOUT_BLANK.sub("", "日本\n 語。\nそれ") == "日本語。それ"
    assert BREAK_WITHOUT_BLANK.sub("", "two\nwords 中\nb") == "two\nwords 中\nb"


@settings(deadline=None)
@given(st.text())
def test_bytes_are_those_of_the_characters(text: str) -> None:
    raw = np.frombuffer(f"a{text}b".encode(errors="replace"), np.uint8)
    positions, codes = non_ascii(raw)
    characters = [c for c in raw.tobytes().decode() if not c.isascii()]
    assert codes.tolist() == [ord(c) for c in characters]
    assert raw[positions].tobytes().decode() == "".join(characters)
