from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cleaning.filters import is_repetitive, language, without_boilerplate
from pipeline.config import Repetition

WORDS = st.lists(st.sampled_from(["a", "b", "c", "de", "fg"]), max_size=40)


def _top(words: list[str], n: int) -> int:
    grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    most = max(grams.values(), default=0)
    return most if most > 1 else 0


def _repeated(words: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            covered |= set(range(i, i + n))
        seen.add(gram)
    return len(covered)


@given(WORDS, st.integers(1, 3), st.sampled_from([0.1, 0.3, 0.6]))
def test_ngram_rules_agree_with_counting(words: list[str], n: int, share: float) -> None:
    text = " ".join(words)
    top = Repetition(max_top_ngram={n: share}, max_duplicate_ngrams={})
    assert is_repetitive(text, top) == (_top(words, n) * n > share * len(words))
    repeats = Repetition(max_top_ngram={}, max_duplicate_ngrams={n: share})
    assert is_repetitive(text, repeats) == (_repeated(words, n) > share * len(words))


def test_prose_passes_and_repeated_lines_do_not() -> None:
    prose = "\n".join(
        f"In year {i} the council of {name} met and settled the matter of the {thing} for good."
        for i, (name, thing) in enumerate(
            [("Ghent", "wool"), ("Siena", "bank"), ("Bruges", "canal"), ("Riga", "harbour")]
        )
    )
    loose = Repetition(max_top_ngram={}, max_duplicate_ngrams={})
    assert not is_repetitive(prose, loose)
    assert is_repetitive(prose + ("\n" + prose.split("\n")[0]) * 3, loose)


def test_gutenberg_licence_and_web_lines_go() -> None:
    text = (
        "The Project Gutenberg eBook of X\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n"
        "Chapter one. All is told here.\nClick here for more.\nThe end.\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence\nlicence\n"
    )
    assert without_boilerplate(text) == ("Chapter one. All is told here.\nThe end.", 6)
    long = "He said that cookies, in his view, were of no use. " * 10
    assert without_boilerplate(long) == (long, 0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The committee has not yet decided on the question.", "en"),
        ("Le comité n'a pas encore\nstatué sur la question.", "fr"),
        ("Комитет ещё не решил этот вопрос.", "ru"),
    ],
)
def test_languages(text: str, code: str) -> None:
    found, score = language(text)
    assert found == code
    assert score > 0.5
