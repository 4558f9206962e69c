"""Metrics by name, from scikit-learn and scipy, with the keys of the Hub's `glue` metric."""

from collections.abc import Callable

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

Metric = Callable[[np.ndarray, np.ndarray], float]


def _correlation(function: Callable) -> Metric:
    def correlate(targets: np.ndarray, predictions: np.ndarray) -> float:
        # A constant prediction has no correlation; GLUE tables count it as 0.
        if np.ptp(predictions) == 0 or np.ptp(targets) == 0:
            return 0.0
        return function(targets, predictions).statistic

    return correlate


METRICS: dict[str, Metric] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "matthews_correlation": matthews_corrcoef,
    "pearson": _correlation(pearsonr),
    "spearmanr": _correlation(spearmanr),
}


def score(names: tuple[str, ...], targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """The metrics `names` of `predictions` [N] against `targets` [N].

    Several metrics also give `combined_score`, their mean, as in `run_glue.py`.
    """
    scores = {name: float(METRICS[name](targets, predictions)) for name in names}
    if len(scores) > 1:
        scores["combined_score"] = float(np.mean(list(scores.values())))
    return scores
