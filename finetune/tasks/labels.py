"""From a label as a file spells it to a class id or a score; and a task's classes from its file.

Writers spell one label in several ways: 1 becomes 1.0 where a column had a gap, true and 1 are one
value to most, and blanks around a word are nobody's intention. Those are one class. Anything else
that differs is another label, and one that the task hasn't got is an error, as is none at all.
"""

import logging
import math
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from finetune.errors import FinetuneError
from finetune.tasks.table import Task

logger = logging.getLogger(__name__)

_WHOLE = re.compile(r"(-?\d+)\.0*", re.ASCII)
_BOOLEANS = {"true": "1", "false": "0"}
# float() would take nan, inf, 1_000 and the digits of any script as well.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_LARGEST = 3.4e38  # of fp32


def key_of(label: str) -> str:
    """What is equal for all spellings of a label."""
    label = unicodedata.normalize("NFC", label.strip())
    whole = _WHOLE.fullmatch(label)
    return whole[1] if whole else _BOOLEANS.get(label.casefold(), label)


class Targets:
    """Turns labels into what a task of classes `labels` trains on; () for scores."""

    def __init__(self, task: Task, labels: tuple[str, ...]) -> None:
        self._name = task.label
        self._is_regression = task.is_regression
        self._ids = {key_of(label): index for index, label in enumerate(labels)}
        self._ids |= {
            key_of(spelling): self._ids[key_of(label)] for spelling, label in task.spelled.items()
        }
        self._found: dict[str, int | float] = {}
        self._expected = "a number, such as 3.5"
        if not self._is_regression:
            source = ", the training file's" if task.labels is None else ""
            self._expected = f"one of {', '.join(labels)}{source}"

    def __call__(self, label: str) -> int | float:
        """The class id or score of a label; ValueError if it is none."""
        if label not in self._found:
            value = _score(label) if self._is_regression else self._ids.get(key_of(label))
            if value is None:
                found = f"is {label!r}" if label.strip() else "is empty, null or missing"
                raise ValueError(f"{self._name} {found}, expected {self._expected}")
            self._found[label] = value
        return self._found[label]


def _score(label: str) -> float | None:
    if not _NUMBER.fullmatch(label.strip()):
        return None
    value = float(label)
    return value if math.fabs(value) <= _LARGEST else None


def classes_of(path: Path, task: Task, labels: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The classes of the training file, sorted, from its labels and where each stands.

    A class is called by its first spelling. FinetuneError for an empty label, and if there
    is only one class, which nothing can be learned from, or, for endings, too few or too many.
    """
    first: dict[str, str] = {}
    for label, where in labels:
        first.setdefault(label, where)
    spellings: dict[str, dict[str, None]] = {}
    for label, where in first.items():
        if not label.strip():
            raise FinetuneError(
                f"{path}, {where}: {task.label} is empty, null or missing, expected a class."
            )
        spellings.setdefault(key_of(label), {})[label.strip()] = None
    for same in spellings.values():
        if len(same) > 1:
            logger.warning("%s: %s are one class", path, " and ".join(map(repr, same)))
    names = [next(iter(same)) for same in spellings.values()]
    if task.kind == "choice":
        return _endings(path, task, names)
    if len(names) == 1:
        raise FinetuneError(
            f"{path}: {task.label} is {names[0]!r} in every row, expected at least two classes "
            "(or --regression, if it is a score)."
        )
    return tuple(sorted(names))


def _endings(path: Path, task: Task, names: list[str]) -> tuple[str, ...]:
    """A class per ending, in their order, though the file may lack rows of some."""
    count = len(task.inputs) - 2
    positions = [str(index) for index in range(count)]
    if {key_of(name) for name in names} <= set(positions):
        return tuple(positions)
    if len(names) != count:
        raise FinetuneError(
            f"{path}: {task.label} is one of {', '.join(sorted(names))} for {count} endings, "
            f"expected the number of one, from 0 to {count - 1}."
        )
    return tuple(sorted(names, key=lambda name: (len(name), name)))
