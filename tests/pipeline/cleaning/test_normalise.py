import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cleaning.normalise import normalise, repaired, unwrapped


@settings(deadline=None)
@given(st.text())
def test_normalising_is_idempotent_and_tidy(text: str) -> None:
    result = normalise(text)
    assert normalise(result) == result
    assert unicodedata.is_normalized("NFC", result)
    assert "  " not in result
    assert "\n\n\n" not in result
    assert "\t" not in result


def test_accents_and_blanks() -> None:
    assert normalise("Cafe\u0301 \t au\u00a0lait \r\n\n\n\n two\x00") == "Caf\u00e9 au lait\n\ntwo"


def test_a_letter_keeps_thirty_marks() -> None:
    marks = "\u0316\u0301" * 50_000
    assert normalise(f"a{marks}b — {'…' * 40}") == f"{_composed(marks[:30])}b — {'…' * 40}"
    few = "\u0316\u0301" * 15
    assert normalise(f"a{few}b") == f"{_composed(few)}b"


def _composed(marks: str) -> str:
    return unicodedata.normalize("NFC", f"a{marks}")


def test_mojibake_is_mended_and_good_text_left_alone() -> None:
    broken = "The cafÃ© on the corner\nserves crème brûlée â€” good."
    assert repaired(broken) == "The café on the corner\nserves crème brûlée — good."
    good = "Żółć, naïve “quotes” — Ωμέγα 東京."
    assert repaired(good) == good


@pytest.mark.parametrize(
    ("broken", "joined"),
    [
        ("One\ntwo\n \n three\nfour", "One two\n\nthree four"),
        ("Раз\nдва", "Раз два"),
        ("एक\nदो", "एक दो"),
        ("春眠不\n覚暁。\n処処", "春眠不覚暁。処処"),
        ("ภาษา\nไทย", "ภาษาไทย"),
        ("واحد\nاثنان", "واحد اثنان"),
        ("한국\n말", "한국 말"),
    ],
)
def test_broken_lines_are_joined_as_the_script_has_it(broken: str, joined: str) -> None:
    assert unwrapped(broken) == joined
