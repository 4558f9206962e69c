"""From a task's row in the table to its rows of text and targets, every cell of them checked."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune.errors import FinetuneError
from finetune.tasks import readers
from finetune.tasks.hub import load_from_hub
from finetune.tasks.split import Split, TaskData
from finetune.tasks.table import TASKS, File, Kind, Task, find_task

logger = logging.getLogger(__name__)


@dataclass
class DataFlags:
    """Files and columns named on the command line: for a task of the table or one of your own."""

    train_file: Path | None = field(
        default=None, metadata={"help": ".tsv, .csv, .json(l), .conll(u), or one of these .gz"}
    )
    validation_file: Path | None = field(default=None, metadata={"help": "same formats"})
    test_file: Path | None = field(default=None, metadata={"help": "same formats, no label needed"})
    text_columns: list[str] | None = field(
        default=None, metadata={"help": "input columns of a task of your own"}
    )
    label_column: str = field(default="label", metadata={"help": "of a task of your own"})
    task_kind: Kind = field(
        default="text",
        metadata={"help": "text (a sentence or two), tokens (a tag a word), choice (of endings)"},
    )
    regression: bool = field(default=False, metadata={"help": "labels are numbers, not classes"})
    metrics: list[str] | None = field(
        default=None,
        metadata={"help": "of a task of your own; default accuracy, or pearson and spearmanr"},
    )

    @property
    def given(self) -> bool:
        """Whether any file is named."""
        return any((self.train_file, self.validation_file, self.test_file))

    def task(self, name: str) -> Task:
        """The task `name` of the table, or one of one's own that these flags describe."""
        if name in TASKS or not self.given:
            return find_task(name)
        if not (self.train_file and self.validation_file and self.text_columns):
            raise FinetuneError(
                f"--task_name {name}: a task of your own needs --train_file, --validation_file and "
                f"--text_columns. Tasks of the table: {', '.join(TASKS)}."
            )
        usual = ("pearson", "spearmanr") if self.regression else ("accuracy",)
        tokens = self.task_kind == "tokens"
        columns = (*self.text_columns, self.label_column) if tokens else ()
        return Task(
            name,
            tuple(self.text_columns[:1]) if tokens else tuple(self.text_columns),
            File(("",)),
            {"": File(("",))},
            {"": File(("",))},
            label=self.label_column,
            labels=() if self.regression else None,
            metrics=tuple(self.metrics) if self.metrics else usual,
            kind=self.task_kind,
            headerless=columns,
            headerless_test=columns,
        )


def load_task(
    name: str, data_dir: Path | None, with_test: bool = False, flags: DataFlags | None = None
) -> TaskData:
    """Read every split of task `name` from the flags' files, from `data_dir` (GLUE's layout, or
    folders beside one called `glue`), or, without either, from the Hub.
    """
    flags = flags or DataFlags()
    task = flags.task(name)
    if data_dir is None and not flags.given:
        return load_from_hub(name, task, with_test)
    folder = task_folder(data_dir, task)
    train = flags.train_file or _find(folder, task.train, task)
    dev = (
        {"": flags.validation_file}
        if flags.validation_file
        else _find_all(folder, name, task, "dev")
    )
    test: Mapping[str, Path] = {}
    if with_test:
        test = {"": flags.test_file} if flags.test_file else _find_all(folder, name, task, "test")
    digest = hashlib.sha256()
    for file in (train, *dev.values(), *test.values()):
        if file.is_file():
            digest.update(file.read_bytes())
    labels = task.labels
    if labels is None:
        labels = tuple(sorted(set(_labels_of(train, task))))
    data = TaskData(
        name,
        task,
        labels,
        read_split(train, task, labels),
        {suffix: read_split(file, task, labels) for suffix, file in dev.items()},
        {suffix: read_split(file, task, labels, is_test=True) for suffix, file in test.items()},
        digest.hexdigest(),
    )
    _compare_sizes(data)
    return data


def task_folder(data_dir: Path | None, task: Task) -> Path:
    """Where `task`'s files are: `data_dir/FOLDER`, or `data_dir/glue/FOLDER`."""
    data_dir = data_dir or Path()
    inside = data_dir / "glue" / task.folder
    return inside if inside.is_dir() else data_dir / task.folder


def _find(folder: Path, file: File, task: Task) -> Path:
    """The file under any of its names; FinetuneError if there is none."""
    for name in file.names:
        if (folder / name).is_file():
            return folder / name
    names = " or ".join(file.names)
    raise FinetuneError(
        f"{folder / file.names[0]}: No such file. --data_dir must hold GLUE's folders (here "
        f"{task.folder}/ with {names}); or name the file: --train_file, --validation_file, "
        "--test_file."
    )


def _find_all(folder: Path, name: str, task: Task, part: str) -> dict[str, Path]:
    """Every file of `dev` or `test`; only the main one (suffix "") has to be there."""
    found = {}
    for suffix, file in getattr(task, part).items():
        if suffix and not any((folder / option).is_file() for option in file.names):
            logger.warning("%s is not there: no results for %s%s", file.names[0], name, suffix)
            continue
        found[suffix] = _find(folder, file, task)
    return found


def read_split(path: Path, task: Task, labels: tuple[str, ...], is_test: bool = False) -> Split:
    """Read one file exactly. The targets of a test file are read only where it has them.

    Raises FinetuneError with file, line, what was found and what was expected.
    """
    texts: list[tuple[str, ...]] = []
    targets: list = []
    known = {label: index for index, label in enumerate(labels)}
    for number, text, target in _cells(path, task, is_test):
        texts.append(text)
        if target is not None:
            targets.append(_target(target, task, known, path, number))
    if not texts:
        raise FinetuneError(f"{path}: no rows; expected at least one.")
    return Split(texts, targets or None)


def _cells(
    path: Path, task: Task, is_test: bool
) -> Iterator[tuple[int, tuple[str, ...], str | list[str] | None]]:
    """Yield (line number, texts, label or tags or None) per row."""
    columns = task.headerless_test if is_test else task.headerless
    if task.kind == "tokens":
        for number, words, tags in readers.read_conll(path, columns, task.inputs[0], task.label):
            yield number, tuple(words), tags
        return
    table = _read_table(path, task, columns)
    labelled = not is_test or (bool(columns) and task.label in columns)
    wanted = (*task.inputs, task.label) if labelled else task.inputs
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        raise FinetuneError(
            f"{path}, line 1: no column {', '.join(map(repr, missing))}; found "
            f"{', '.join(map(repr, table.columns))}, expected {', '.join(map(repr, wanted))}."
        )
    for number, row in table.rows:
        texts = tuple(row[column] for column in task.inputs)
        yield number, texts, row[task.label] if labelled else None


def _read_table(path: Path, task: Task, columns: tuple[str, ...]) -> readers.Table:
    match task.format or readers.format_of(path):
        case "csv":
            return readers.read_csv(path, columns)
        case "json":
            return readers.read_json(path)
        case "trec":
            return readers.read_trec(path)
        case _:
            return readers.read_tsv(path, columns, task.drops_short_rows)


def _target(
    found: str | list[str], task: Task, known: dict[str, int], path: Path, number: int
) -> float | int | list[int]:
    """A label's class id, a score, or a sentence's list of class ids."""
    if task.is_regression:
        try:
            return float(found)  # type: ignore[arg-type]
        except ValueError:
            raise FinetuneError(
                f"{path}, line {number}: {task.label} is {found!r}, expected a number."
            ) from None
    tags = [found] if isinstance(found, str) else found
    tags = [task.spelled.get(tag, tag) for tag in tags]
    for index, tag in enumerate(tags):
        if tag not in known:
            line = number if isinstance(found, str) else number + index
            raise FinetuneError(
                f"{path}, line {line}: {task.label} is {tag!r}, expected one of {', '.join(known)}."
            )
    ids = [known[tag] for tag in tags]
    return ids[0] if isinstance(found, str) else ids


def _labels_of(path: Path, task: Task) -> Iterator[str]:
    for _, _, label in _cells(path, task, False):
        if isinstance(label, str):
            yield task.spelled.get(label, label)
        else:
            yield from label or ()


def _compare_sizes(data: TaskData) -> None:
    """Say which splits are not of the official size: a part, or not read as its authors meant."""
    splits = [("train", data.train, data.task.train)]
    splits += [(f"dev{s}", split, data.task.dev[s]) for s, split in data.dev.items()]
    splits += [(f"test{s}", split, data.task.test[s]) for s, split in data.test.items()]
    for part, split, file in splits:
        if file.rows not in (None, len(split.texts)):
            logger.warning(
                "%s, %s: %d rows, officially %d", data.name, part, len(split.texts), file.rows
            )
