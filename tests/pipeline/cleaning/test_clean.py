import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cleaning import filters
from pipeline.cleaning.clean import clean, in_parts
from pipeline.config import Cleaning
from pipeline.sections import Repetition

PIECE = st.sampled_from(["word", " ", "\n\n", "\n", ". ", "。", "नी", "é", "?", "x" * 30])
TEXT = st.lists(PIECE, max_size=200).map("".join).map(str.strip)


@settings(deadline=None)
@given(TEXT, st.integers(1, 60))
def test_parts_are_the_whole_text_and_never_too_long(text: str, most: int) -> None:
    parts = in_parts(text, most)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(len(part) <= most for part in parts)
    if len(text) <= most:
        assert parts == [text]
    assert all(parts) or not text
    assert len(parts) <= 4 * len(text) // most + 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One two.\n\nThree four. Five.", ["One two.", "Three four. Five."]),
        ("Once upon. A time there was", ["Once upon.", "A time there was"]),
        ("once upon a time there was", ["once upon a", "time there was"]),
        ("abcdefghijklmnopqrstuvwxyz", ["abcdefghijklm", "nopqrstuvwxyz"]),
        ("今天天气很好。我们去公园。" * 2, ["今天天气很好。我们去公园。"] * 2),
        ("नदी बहती है। लोग आते हैं।", ["नदी बहती है।", "लोग आते हैं।"]),
        ("ไปตลาดกัน กินข้าว กลับบ้าน", ["ไปตลาดกัน", "กินข้าว กลับบ้าน"]),
        ("جاء الولد؟ ذهب الرجل إلى البيت", ["جاء الولد؟", "ذهب الرجل إلى البيت"]),
    ],
)
def test_a_cut_is_at_a_paragraph_else_a_sentence_else_a_blank(text: str, parts: list[str]) -> None:
    assert in_parts(text, 20) == parts


def test_a_mark_stays_with_its_letter() -> None:
    assert all(part.endswith("ीः") for part in in_parts("नीः" * 40, 20))


LETTERS = "abcdefghijklmnopqrstuvwxyz"
RUNS = {
    "base64": "".join(random.Random(19).choices(LETTERS + "0123+/=", k=300_000)),
    "one_letter": "a" * 300_000,
    "no_blanks": "".join(chr(random.Random(i).randrange(0x4E00, 0x5E00)) for i in range(100_000)),
    "blanks": " " * 300_000,
    "wide_blanks": "\u3000" * 300_000,
    "line_breaks": "\n" * 300_000,
    "dashes": "-" * 300_000,
    "wide_dashes": "—" * 300_000,
    "stars": "*** START OF THE " * 18_000,
    "marks": "e" + "\u0301\u0316" * 60_000,
    "vowel_signs": "\u0940\u0903" * 100_000,
    "mojibake": "Ã©â€™" * 60_000,
    "dots": ". " * 150_000,
    "cookies": "cookie " * 43_000,
}


@pytest.mark.parametrize("name", list(RUNS))
@pytest.mark.parametrize("markup", ["plain", "docstring"])
def test_a_document_of_one_endless_word_takes_a_moment(name: str, markup: str) -> None:
    head = "A page with a picture that was pasted into the text itself, which nobody noticed. "
    cleaning = Cleaning(boilerplate=True, lines="join", repetition=Repetition(), languages=["en"])
    active = filters.load(cleaning)
    filters.drop_reason(head, active)  # loads what is loaded once
    start = time.process_time()
    cleaned = clean(f"{head}{RUNS[name]} {head}", markup, cleaning)
    for part in in_parts(cleaned.text, 50_000):
        filters.drop_reason(part, active)
    assert time.process_time() - start < 2


def test_boilerplate_lines_are_counted_and_broken_lines_joined() -> None:
    text = "Prose of some kind.\nPlease accept our cookie policy.\n\nMore of\nit."
    cleaned = clean(text, "plain", Cleaning(min_characters=1, boilerplate=True, lines="join"))
    assert cleaned == ("Prose of some kind.\n\nMore of it.", 1)
