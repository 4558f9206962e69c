"""Metrics against their definitions, written out."""

import numpy as np
import pytest

from finetune.metrics import score


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    targets = draw.integers(0, 2, 200)
    return targets, np.where(draw.random(200) < 0.8, targets, 1 - targets)


def test_classification(labels: tuple[np.ndarray, np.ndarray]) -> None:
    targets, predictions = labels
    tp, tn = (targets & predictions).sum(), ((1 - targets) & (1 - predictions)).sum()
    fp, fn = ((1 - targets) & predictions).sum(), (targets & (1 - predictions)).sum()
    found = score(("accuracy", "f1", "matthews_correlation"), targets, predictions)
    assert found["accuracy"] == pytest.approx((tp + tn) / 200)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    root = np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    assert found["matthews_correlation"] == pytest.approx((tp * tn - fp * fn) / root)


def test_correlation_and_combined_score() -> None:
    draw = np.random.default_rng(0)
    targets = draw.random(50)
    predictions = targets + draw.random(50)
    found = score(("pearson", "spearmanr"), targets, predictions)
    ranks = [np.argsort(np.argsort(values)) for values in (targets, predictions)]
    assert found["pearson"] == pytest.approx(np.corrcoef(targets, predictions)[0, 1])
    assert found["spearmanr"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found["combined_score"] == pytest.approx((found["pearson"] + found["spearmanr"]) / 2)


def test_constant_predictions_correlate_with_nothing() -> None:
    assert score(("pearson",), np.arange(5.0), np.ones(5)) == {"pearson": 0.0}
