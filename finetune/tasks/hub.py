"""The same tasks from the Hub, through `datasets`."""

import logging
import math
from typing import TYPE_CHECKING

from finetune.errors import FinetuneError
from finetune.tasks.split import Split, TaskData
from finetune.tasks.table import Task

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)


def load_from_hub(name: str, task: Task, with_test: bool) -> TaskData:
    """Every split of `task` from the Hub's data set that its row names."""
    if task.hub is None:
        raise FinetuneError(f"--task_name {name}: not on the Hub; give its folder with --data_dir.")
    import datasets  # half a second that local files don't need

    try:
        hub = datasets.load_dataset(task.hub.dataset, task.hub.config)
    except Exception as error:
        raise FinetuneError(
            f"{task.hub.dataset} {task.hub.config or ''} could not be fetched from the Hub: "
            f"{error}. Give a local copy with --data_dir."
        ) from error

    def split(part: str, is_test: bool = False) -> Split:
        return _split(hub[part], f"{task.hub.dataset}, {part}", task, is_test)  # type: ignore[union-attr]

    # Class ids need no mapping: our label orders are the Hub's.
    return TaskData(
        name,
        task,
        task.labels or (),
        split("train"),
        {suffix: split(part) for suffix, part in task.hub.dev.items()},
        {suffix: split(part, is_test=True) for suffix, part in task.hub.test.items()}
        if with_test
        else {},
        "hub",
    )


def _split(rows: "datasets.Dataset", where: str, task: Task, is_test: bool) -> Split:
    """As from files: a null text is empty and counted, a label that is none is an error."""
    assert task.hub is not None
    columns = []
    for name in task.hub.inputs:
        texts = [text or "" for text in rows[name]]
        empty = sum(not text.strip() for text in texts)
        if empty:
            logger.warning("%s: %s is empty in %d of %d rows", where, name, empty, len(texts))
        columns.append(texts)
    labels = None if is_test else list(rows["label"])
    for index, label in enumerate(labels or ()):
        if not _is_label(label, task):
            expected = (
                "a number" if task.is_regression else f"from 0 to {len(task.labels or ()) - 1}"
            )
            raise FinetuneError(
                f"{where}, row {index}: label is {label!r}, expected {expected}. Give a local copy "
                "with --data_dir."
            )
    return Split(list(zip(*columns, strict=True)), labels)


def _is_label(label: object, task: Task) -> bool:
    if task.is_regression:
        return isinstance(label, float | int) and math.isfinite(label)
    return isinstance(label, int) and 0 <= label < len(task.labels or ())
