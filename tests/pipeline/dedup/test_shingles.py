import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup.shingles import Words

regex = pytest.importorskip("regex")

# Nine scripts, letters with their marks, and punctuation.
PIECES = [
    *"ab cÄé.-\n'1“”—жйع رب中文。，のカกน\u200d",
    "हि",
    "न्दी",
    "กิ",
    "น้ำ",
    "မြ",
    "န်",
    "ខ្",
    "មែ",
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Khmer}\p{Myanmar}"


def _words(text: str) -> list[tuple[str, float]]:
    """Words and what they count, by the properties of the library `regex`."""
    found: list[tuple[str, float]] = []
    last = None
    for match in regex.finditer(
        rf"(?V1)(?P<s>[[\p{{L}}\p{{M}}\p{{N}}]--[{_SCRIPTS}]]+)|(?P<c>[[{_SCRIPTS}]&&\p{{L}}])"
        rf"|(?P<m>[[{_SCRIPTS}]&&\p{{M}}])|(?P<x>.)",
        text.casefold().replace("\u200d", ""),
        regex.DOTALL,
    ):
        if match["x"]:
            last = "x" if last != "c" else last
        elif match["m"] and found and last in ("c", "s"):
            found[-1] = (found[-1][0] + match["m"], found[-1][1])
        elif match["m"]:
            found.append((match["m"], 0.5))
            last = "c"
        else:
            found.append((match[0], 1.0 if match["s"] else 0.5))
            last = match.lastgroup
    return found


def _brute(text: str, n: int) -> list[tuple[str, ...]]:
    words = _words(text)
    grams = []
    for start in range(len(words)):
        weight = 0.0
        for stop in range(start, len(words)):
            weight += words[stop][1]
            if weight >= n:
                grams.append(tuple(word for word, _ in words[start : stop + 1]))
                break
    return grams


@settings(deadline=None)
@given(TEXT, TEXT, st.integers(1, 4))
def test_numbers_are_equal_where_the_words_are(a: str, b: str, n: int) -> None:
    ours = [Words(text).ngrams(n).tolist() for text in (a, b)]
    brute = [_brute(text, n) for text in (a, b)]
    assert [len(x) for x in ours] == [len(x) for x in brute]
    flat, flat_brute = ours[0] + ours[1], brute[0] + brute[1]
    for i, x in enumerate(flat):
        for j in range(i):
            assert (x == flat[j]) == (flat_brute[i] == flat_brute[j])


@settings(deadline=None)
@given(TEXT)
def test_weights_are_those_of_the_words(text: str) -> None:
    words = _words(text)
    ours = Words(text)
    assert ours.weight == sum(weight for _, weight in words)
    for i, (_, weight) in enumerate(words):
        assert ours.weight_of(np.arange(len(ours)) == i) == weight


def test_numbers_are_spread_and_stay_the_same() -> None:
    numbers = Words(" ".join(f"word{i}" for i in range(5000))).ngrams(2)
    assert len(np.unique(numbers)) == len(numbers)
    ones = np.unpackbits(numbers.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 0.01
    assert Words("The  mask, is").ngrams(3).tolist() == Words("the mask is.").ngrams(3).tolist()


def _number(gram: str) -> int:
    """The hash as the module describes it, in Python's whole numbers."""
    base = 0x9E3779B97F4A7C15
    x = sum((byte + 1) * pow(base, i, 2**64) for i, byte in enumerate(gram.encode())) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = (x ^ (x >> shift)) * factor % 2**64
    return x


def test_numbers_are_the_hashes_of_the_words() -> None:
    plain = "The quick brown fox jumps over 13 lazy dogs."
    expected = [_number(gram) for gram in ("the quick brown", "quick brown fox", "brown fox jumps")]
    assert Words(plain).ngrams(3)[:3].tolist() == expected
    assert Words("“The quick brown fox” — jumps…").ngrams(3).tolist() == expected
    assert Words("今天，天气很好").ngrams(2)[:2].tolist() == [
        _number("今天天气"),
        _number("天天气很"),
    ]
    long = " ".join(f"w{i * i}" for i in range(20_000))
    assert Words(long).ngrams(5)[-1] == _number(" ".join(long.split()[-5:]))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Он сказал: «Привет, мир!» и ушёл", "он сказал привет мир и ушёл"),
        ("नदी, गाँव के पास बहती है।", "नदी गाँव के पास बहती है"),
        ("قال: «مرحبا، أيها العالم»", "قال مرحبا أيها العالم"),
        ("今天，天气很好。我们去公园", "今天天气很好 我们去公园"),
        ("東京（とうきょう）は、日本の首都", "東京とうきょうは日本の首都"),
        ("วันนี้ อากาศดี", "วันนี้อากาศดี"),
        ("STRASSE und Maß", "straße und MASS"),
    ],
)
def test_punctuation_case_and_layout_make_no_difference_in_any_script(a: str, b: str) -> None:
    assert Words(a).ngrams(2).tolist() == Words(b).ngrams(2).tolist()
    assert len(Words(a).ngrams(2))


_THREADS = """
import importlib, json, sys, threading
from pipeline.dedup import shingles
text = json.load(sys.stdin)
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(4)
found = set()
def work():
    barrier.wait()
    found.add(tuple(shingles.Words(text).ngrams(5).tolist()))
for _ in range(200):
    importlib.reload(shingles)  # what threads might share begins small
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
json.dump([*found], sys.stdout)
"""


def test_threads_of_one_process_get_the_right_numbers() -> None:
    words = [f"w{i * i}" for i in range(300)]
    command = [sys.executable, "-c", _THREADS]  # a process of its own, for the switches
    given = json.dumps(" ".join(words))
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [
        [_number(" ".join(words[i : i + 5])) for i in range(len(words) - 4)]
    ]
