from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cleaning.filters.repetitive import Filter

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


@settings(deadline=None)
@given(WORDS, st.integers(1, 3), st.sampled_from([0.1, 0.3, 0.6]))
def test_ngram_rules_agree_with_counting(words: list[str], n: int, share: float) -> None:
    text = " ".join(words)
    top = Filter(max_top_ngram={n: share}, max_duplicate_ngrams={})
    assert top.drops(text) == (_top(words, n) * n > share * len(words))
    repeats = Filter(max_top_ngram={}, max_duplicate_ngrams={n: share})
    assert repeats.drops(text) == (_repeated(words, n) > share * len(words))


@settings(deadline=None)
@given(st.lists(st.sampled_from("中文字典ก"), max_size=40), st.sampled_from([0.1, 0.3, 0.6]))
def test_two_characters_without_blanks_count_as_a_word(characters: list[str], share: float) -> None:
    top = Filter(max_top_ngram={2: share}, max_duplicate_ngrams={})
    assert top.drops("".join(characters)) == (_top(characters, 4) * 4 > share * len(characters))
    repeats = Filter(max_top_ngram={}, max_duplicate_ngrams={2: share})
    assert repeats.drops("".join(characters)) == (
        _repeated(characters, 4) > share * len(characters)
    )


def test_prose_passes_and_repeated_lines_do_not() -> None:
    prose = "\n".join(
        f"In year {i} the council of {name} met and settled the matter of the {thing} for good."
        for i, (name, thing) in enumerate(
            [("Ghent", "wool"), ("Siena", "bank"), ("Bruges", "canal"), ("Riga", "harbour")]
        )
    )
    loose = Filter(max_top_ngram={}, max_duplicate_ngrams={})
    assert not loose.drops(prose)
    assert loose.drops(prose + ("\n" + prose.split("\n")[0]) * 3)


@pytest.mark.parametrize(
    "name", ["Latin", "Cyrillic", "Devanagari", "Han", "Kana", "Thai", "Arabic"]
)
def test_in_every_script_prose_passes_and_a_refrain_does_not(
    name: str, prose: dict[str, str]
) -> None:
    assert not Filter().drops(prose[name])
    refrain = prose[name][:40]
    assert Filter().drops(prose[name] + refrain * 6)
