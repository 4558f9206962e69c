"""Metrics by name, from scikit-learn and scipy, with the keys of the Hub's `glue` metric.

Entity F1 is CoNLL's (the rules of its script conlleval), written out here: the library for it,
seqeval, had its last release in 2020.
"""

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, recall_score

from finetune.errors import FinetuneError
from finetune.tasks.split import TaskData

Metric = Callable[[np.ndarray, np.ndarray], float]


def _correlation(function: Callable) -> Metric:
    def correlate(targets: np.ndarray, predictions: np.ndarray) -> float:
        # A constant prediction has no correlation; GLUE tables count it as 0.
        if np.ptp(predictions) == 0 or np.ptp(targets) == 0 or not np.isfinite(predictions).all():
            return 0.0
        return function(targets, predictions).statistic

    return correlate


_IOB = re.compile(r"O|[BIES](-.+)?")
CORRELATIONS = ("pearson", "spearmanr")
METRICS: dict[str, Metric] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "macro_f1": lambda targets, predictions: f1_score(targets, predictions, average="macro"),
    "macro_recall": lambda targets, predictions: recall_score(
        targets, predictions, average="macro"
    ),
    "matthews_correlation": matthews_corrcoef,
    "pearson": _correlation(pearsonr),
    "spearmanr": _correlation(spearmanr),
}


def check_metrics(data: TaskData) -> None:
    """FinetuneError for a metric that doesn't exist, or that the task's labels have none of."""
    task, classes = data.task, len(data.labels)
    known = [*METRICS, "entity_f1"]
    for name in task.metrics:
        expected = ""
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            expected = f"one of {', '.join(known)}.{hint}"
        elif task.is_regression and name not in CORRELATIONS:
            expected = f"{' or '.join(CORRELATIONS)}, since labels are scores."
        elif task.kind == "tokens" and name in (*CORRELATIONS, "f1"):
            expected = "one that counts words or entities, such as accuracy, macro_f1, entity_f1."
        elif task.kind != "tokens" and name == "entity_f1":
            expected = f"one for --task_kind {task.kind}; entities are of --task_kind tokens."
        elif name == "entity_f1" and not all(map(_IOB.fullmatch, data.labels)):
            odd = next(tag for tag in data.labels if not _IOB.fullmatch(tag))
            expected = (
                f"tags such as O, B-PER, I-PER (IOB or IOBES), found {odd!r}; write the tags by "
                "such names, or take accuracy or macro_f1."
            )
        elif name == "f1" and classes != 2:
            expected = f"macro_f1, since there are {classes} classes; f1 is of the second of two."
        if expected:
            raise FinetuneError(f"--metrics {name} for {data.name}: expected {expected}")


def score(names: tuple[str, ...], targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """The metrics `names` of `predictions` [N] against `targets` [N].

    Several metrics also give `combined_score`, their mean, as in `run_glue.py`.
    """
    scores = {name: float(METRICS[name](targets, predictions)) for name in names}
    if len(scores) > 1:
        scores["combined_score"] = float(np.mean(list(scores.values())))
    return scores


def score_tags(
    names: tuple[str, ...], targets: Sequence[list[str]], predictions: Sequence[list[str]]
) -> dict[str, float]:
    """The metrics `names` over sentences of tags; all but `entity_f1` count word by word."""
    scores = {}
    for name in names:
        if name == "entity_f1":
            scores[name] = entity_f1(targets, predictions)
        else:
            flat = [
                np.array([tag for row in rows for tag in row]) for rows in (targets, predictions)
            ]
            scores[name] = float(METRICS[name](*flat))
    return scores


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(type, first word, word after the last) of every entity in a sentence of BIO or IOBES tags.

    As conlleval: B and S begin one, and so does I or E after O, after an end, or after another
    type; whatever isn't continued ends.
    """
    found: set[tuple[str, int, int]] = set()
    before, begin = ("O", ""), 0
    for index, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        begins = prefix in ("B", "S") or before[0] in ("O", "E", "S") or before[1] != kind
        if before[0] != "O" and (prefix == "O" or begins):
            found.add((before[1], begin, index))
        if prefix != "O" and begins:
            begin = index
        before = (prefix, kind)
    return found


def entity_f1(targets: Sequence[list[str]], predictions: Sequence[list[str]]) -> float:
    """CoNLL's score: F1 over all entities, right in type and both borders; 0 if there are none."""
    right = found = wanted = 0
    for target, prediction in zip(targets, predictions, strict=True):
        a, b = entities(target), entities(prediction)
        right, found, wanted = right + len(a & b), found + len(b), wanted + len(a)
    return 2 * right / (found + wanted) if found + wanted else 0.0
