import random
import re

import numpy as np

from pipeline.config import NearDuplicates
from pipeline.dedup.minhash import band_keys, signatures

SETTINGS = NearDuplicates(bands=64, rows=4)


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def _pair(rng: random.Random, changes: int) -> tuple[str, str]:
    words = [f"w{rng.randrange(5000)}" for _ in range(300)]
    changed = list(words)
    for at in rng.sample(range(300), changes):
        changed[at] = "other"
    return " ".join(words), " ".join(changed)


def test_estimates_are_unbiased_and_as_close_as_the_number_of_hashes_allows() -> None:
    rng = random.Random(0)
    pairs = [_pair(rng, changes) for changes in (0, 3, 10, 25, 60, 120) for _ in range(30)]
    true = np.array([len(_grams(a) & _grams(b)) / len(_grams(a) | _grams(b)) for a, b in pairs])
    signed = signatures([text for pair in pairs for text in pair], SETTINGS)
    error = (signed[::2] == signed[1::2]).mean(axis=1) - true
    assert np.abs(error[true == 1]).max() == 0
    assert abs(error.mean()) < 0.01
    assert np.sqrt((error**2).mean()) < 0.5 / np.sqrt(256) * 1.3  # binomial, at most


def test_bands_meet_as_often_as_the_formula_says() -> None:
    rng = random.Random(1)
    settings = NearDuplicates(bands=20, rows=6)
    pairs = [_pair(rng, 17) for _ in range(300)]
    true = np.array([len(_grams(a) & _grams(b)) / len(_grams(a) | _grams(b)) for a, b in pairs])
    keys = band_keys(signatures([text for pair in pairs for text in pair], settings), settings)
    met = (keys[::2] == keys[1::2]).any(axis=1)
    expected = 1 - (1 - true**6) ** 20
    assert abs(met.mean() - expected.mean()) < 0.1


def test_short_and_empty_texts_have_signatures_too() -> None:
    signed = signatures(["", "two words", "two words", "other ones"], SETTINGS)
    assert (signed[1] == signed[2]).all()
    assert not (signed[1] == signed[3]).all()
    assert signed.shape == (4, 256)


def test_near_duplicates_are_near_in_scripts_without_blanks() -> None:
    rng = random.Random(2)
    for first, last in ((0x4E00, 0x5E00), (0x3041, 0x3094), (0x0E01, 0x0E2F), (0x1780, 0x17A3)):
        text = [chr(rng.randrange(first, last)) for _ in range(600)]
        changed = list(text)
        for at in rng.sample(range(600), 12):
            changed[at] = chr(first)
        grams = [{tuple(t[i : i + 10]) for i in range(591)} for t in (text, changed)]
        true = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        signed = signatures(["".join(text), "。".join(changed), "".join(text[::-1])], SETTINGS)
        assert abs((signed[0] == signed[1]).mean() - true) < 0.12
        assert (signed[0] == signed[2]).mean() < 0.05


def test_texts_of_signs_only_resemble_none_but_their_equals() -> None:
    signed = signatures(["★ ☆ ★", "★ ☆ ★", "—", "…"], SETTINGS)
    assert (signed[0] == signed[1]).all()
    assert max((signed[0] == signed[2]).mean(), (signed[2] == signed[3]).mean()) < 0.05
