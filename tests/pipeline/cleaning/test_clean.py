import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cleaning.clean import clean, docstring_prose, letters, normalise, repaired
from pipeline.config import Cleaning, Repetition


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


def test_docstring_keeps_the_prose_and_drops_the_code() -> None:
    text = """Return the :class:`~a.b.Thing` of ``x``.

    Parameters
    ----------
    x : int

    .. versionadded:: 1.2
        Some note.

    For example::

        code(here)

    >>> f(1)
    2

    See `the guide <http://example.org/guide>`_.

    ```python
    fenced()
    ```
    """
    prose = normalise(docstring_prose(text))
    assert prose == (
        "Return the Thing of x.\n\nParameters x : int\n\nFor example:\n\nSee the guide."
    )


def test_each_drop_reason() -> None:
    rules = Cleaning(min_characters=10, max_characters=20, min_alphabetic=0.5)
    assert clean("short", "plain", rules)[1] == "too_short"
    assert clean("x" * 21, "plain", rules)[1] == "too_long"
    assert clean("1234567890 ab", "plain", rules)[1] == "not_prose"
    assert clean("a good text", "plain", rules) == ("a good text", None, 0)


def test_mojibake_is_mended_and_good_text_left_alone() -> None:
    broken = "The cafÃ© on the corner\nserves crème brûlée â€” good."
    assert repaired(broken) == "The café on the corner\nserves crème brûlée — good."
    good = "Żółć, naïve “quotes” — Ωμέγα 東京."
    assert repaired(good) == good


def test_rules_are_asked_for_one_by_one() -> None:
    german = (
        "Der schnelle braune Fuchs springt über den faulen Hund und läuft dann nach Hause. " * 2
    )
    assert clean(german, "plain", Cleaning()).reason is None
    assert clean(german, "plain", Cleaning(languages=["en"])).reason == "other_language"
    assert clean(german, "plain", Cleaning(languages=["en", "de"])).reason is None
    chorus = "\n".join(["A line that is sung again and again."] * 5)
    assert clean(chorus, "plain", Cleaning()).reason is None
    assert clean(chorus, "plain", Cleaning(repetition=Repetition())).reason == "repetitive"


def test_boilerplate_lines_are_counted_and_broken_lines_joined() -> None:
    text = "Prose of some kind.\nPlease accept our cookie policy.\n\nMore of\nit."
    cleaned = clean(text, "plain", Cleaning(min_characters=1, boilerplate=True, lines="join"))
    assert cleaned == ("Prose of some kind.\n\nMore of it.", None, 1)


@given(st.text())
def test_letters_are_counted_as_python_has_them(text: str) -> None:
    assert letters(text) == sum(character.isalpha() for character in text)
