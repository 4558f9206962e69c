"""The bigram line: a distribution, and near the entropy of a chain whose entropy is known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from pretrain.data import Sequences, ShardFolder
from reproduce.late_masking.bigram import Bigram, neighbours
from reproduce.late_masking.collect import reference_lines


def test_it_is_a_distribution_and_the_formula() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 7, size=(60, 9))
    frequencies = np.full(7, 1 / 7)
    bigram = Bigram(rows, np.log(frequencies))
    counted = rows[np.arange(60) % 20 != 0]
    for left in range(7):
        chances = []
        for right in range(7):
            loss = bigram.loss(np.array([left]), np.array([right]), prior=10.0)
            pairs = [pair for row in counted for pair in itertools.pairwise(row)]
            seen = pairs.count((left, right))
            total = int((counted[:, :-1] == left).sum())
            assert math.exp(-loss) == pytest.approx((seen + 10 / 7) / (total + 10))
            chances.append(math.exp(-loss))
        assert sum(chances) == pytest.approx(1)


def test_a_chain_with_two_successors_costs_ln_2(out: Path) -> None:
    lines = reference_lines(ShardFolder(out / "data"), 48)
    # Some 15,000 pairs for 600 possible ones: the estimate is a little dearer than the truth.
    assert math.log(2) < lines["bigram"] < 1.2
    assert lines["unigram"] > 5


def test_both_lines_are_about_the_same_tokens(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Special tokens at surplus positions have no label, so no line may count them."""
    data = ShardFolder(out / "data")
    read = Sequences.__getitem__

    def mostly_special(rows: Sequences, indices: np.ndarray) -> np.ndarray:
        sequences = read(rows, indices)
        sequences[::2, 3:] = 2
        return sequences

    counted = []

    def record(_: Bigram, left: np.ndarray, right: np.ndarray, prior: float = 0.0) -> float:
        counted.append(right)
        return prior

    monkeypatch.setattr(Sequences, "__getitem__", mostly_special)
    monkeypatch.setattr(Bigram, "loss", record)
    reference_lines(data, 48)
    assert not np.isin(counted[-1], data.vocabulary.special).any()


def test_left_neighbours() -> None:
    rows = np.array([[0, 5, 6, 2], [0, 7, 8, 2]])
    left, right = neighbours(rows, [np.array([2, 1]), np.array([1])])
    assert left.tolist() == [5, 0, 0]
    assert right.tolist() == [6, 5, 7]
