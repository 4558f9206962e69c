"""The same tasks from the Hub, through `datasets`."""

from typing import TYPE_CHECKING

from finetune.errors import FinetuneError
from finetune.tasks.split import Split, TaskData
from finetune.tasks.table import Task

if TYPE_CHECKING:
    import datasets


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
    # Class ids need no mapping: our label orders are the Hub's.
    return TaskData(
        name,
        task,
        task.labels or (),
        _split(hub["train"], task.hub.inputs),
        {suffix: _split(hub[part], task.hub.inputs) for suffix, part in task.hub.dev.items()},
        {
            suffix: _split(hub[part], task.hub.inputs, is_test=True)
            for suffix, part in task.hub.test.items()
        }
        if with_test
        else {},
        "hub",
    )


def _split(rows: "datasets.Dataset", inputs: tuple[str, ...], is_test: bool = False) -> Split:
    texts = list(zip(*(rows[column] for column in inputs), strict=True))
    return Split(texts, None if is_test else list(rows["label"]))
