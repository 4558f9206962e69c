import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup.shingles import Words

TEXT = st.text(alphabet="ab cÄé.-\n'1", max_size=60)


def _brute(text: str, n: int) -> list[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9\x80-\U0010ffff]+", text.lower())
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


@given(TEXT, TEXT, st.integers(1, 4))
def test_numbers_are_equal_where_the_words_are(a: str, b: str, n: int) -> None:
    ours = [Words(text).ngrams(n).tolist() for text in (a, b)]
    brute = [_brute(text, n) for text in (a, b)]
    assert [len(x) for x in ours] == [len(x) for x in brute]
    flat, flat_brute = ours[0] + ours[1], brute[0] + brute[1]
    for i, x in enumerate(flat):
        for j in range(i):
            assert (x == flat[j]) == (flat_brute[i] == flat_brute[j])


def test_numbers_are_spread_and_stay_the_same() -> None:
    numbers = Words(" ".join(f"word{i}" for i in range(5000))).ngrams(2)
    assert len(np.unique(numbers)) == len(numbers)
    ones = np.unpackbits(numbers.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 0.01
    assert Words("The  mask, is").ngrams(3).tolist() == Words("the mask is.").ngrams(3).tolist()
