"""The three kinds of task: which model they take, how rows become batches and logits answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)

from finetune.tasks import Task
from finetune.tasks.encode import IGNORED
from finetune.tasks.metrics import score, score_tags


@dataclass(frozen=True)
class Kind:
    """The stock classes for one kind of task."""

    model: Any
    collator: Callable[..., Any]


KINDS = {
    "text": Kind(AutoModelForSequenceClassification, DataCollatorWithPadding),
    "tokens": Kind(AutoModelForTokenClassification, DataCollatorForTokenClassification),
    "choice": Kind(AutoModelForMultipleChoice, DataCollatorForMultipleChoice),
}


def decide(logits: np.ndarray, task: Task) -> np.ndarray:
    """Class ids [N], for tokens [N, T], or scores [N] for regression."""
    return logits[:, 0] if task.is_regression else logits.argmax(axis=-1)


def score_answers(
    task: Task, labels: tuple[str, ...], targets: np.ndarray, answers: np.ndarray
) -> dict[str, float]:
    """The task's metrics of `answers` against `targets`, both [N] or, for tokens, [N, T]."""
    if task.kind != "tokens":
        return score(task.metrics, targets, answers)
    names = np.array(labels, dtype=object)
    scored = [row != IGNORED for row in targets]
    return score_tags(
        task.metrics,
        [list(names[row[where]]) for row, where in zip(targets, scored, strict=True)],
        [list(names[row[where]]) for row, where in zip(answers, scored, strict=True)],
    )


def constant_scores(task: Task, labels: tuple[str, ...], targets: np.ndarray) -> dict[str, float]:
    """The metrics of one answer to everything: the most frequent class, or the mean score."""
    if task.is_regression:
        answer = targets.mean()
    else:
        answer = np.bincount(targets[targets != IGNORED].astype(np.int64)).argmax()
    return score_answers(task, labels, targets, np.full_like(targets, answer))


def health(task: Task, targets: np.ndarray, logits: np.ndarray) -> str:
    """ "ok"; "diverged" if a logit is no number; "collapsed" if one answer is given to everything.

    A finetuning run fails in just these ways when its learning rate is too high for it.
    """
    if not np.isfinite(logits).all():
        return "diverged"
    answers = decide(logits, task)
    if task.kind == "tokens":
        answers, targets = answers[targets != IGNORED], targets[targets != IGNORED]
    same = np.ptp(answers) < 1e-3 if task.is_regression else len(np.unique(answers)) == 1
    return "collapsed" if same and len(np.unique(targets)) > 1 else "ok"
