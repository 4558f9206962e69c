"""From a task's row in the table to its rows of text and targets, every cell of them checked."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError
from finetune.tasks import readers
from finetune.tasks.hub import load_from_hub
from finetune.tasks.labels import Targets, classes_of
from finetune.tasks.split import Split, TaskData
from finetune.tasks.table import TASKS, File, Kind, Task, find_task
from finetune.tasks.words import Sentence, read_conll, read_json_words

logger = logging.getLogger(__name__)


@dataclass
class DataFlags:
    """Files and columns named on the command line: for a task of the table or one of your own."""

    train_file: Path | None = field(
        default=None, metadata={"help": ".tsv, .csv, .json(l), .conll(u), or one of these .gz"}
    )
    validation_file: Path | None = field(default=None, metadata={"help": "same formats"})
    test_file: Path | None = field(
        default=None, metadata={"help": "same formats; labels only for words"}
    )
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

    def deciding(self, name: str) -> dict[str, Any]:
        """What of a task of one's own decides its results, beside the files' content."""
        if name in TASKS or not self.given:
            return {}
        task = self.task(name)
        return {
            "text_columns": self.text_columns,
            "label_column": task.label,
            "metrics": list(task.metrics),
        }

    def task(self, name: str) -> Task:
        """The task `name` of the table, or one of one's own that these flags describe."""
        if name in TASKS or not self.given:
            return replace(find_task(name), may_be_quoted=self.given)
        if not (self.train_file and self.validation_file and self.text_columns):
            raise FinetuneError(
                f"--task_name {name}: a task of your own needs --train_file, --validation_file and "
                f"--text_columns. Tasks of the table: {', '.join(TASKS)}."
            )
        if self.regression and self.task_kind != "text":
            raise FinetuneError(
                f"--regression: found --task_kind {self.task_kind}, expected text; only a text has "
                "a score."
            )
        most = {"text": 2, "tokens": 1, "choice": len(self.text_columns)}[self.task_kind]
        if len(self.text_columns) > most:
            raise FinetuneError(
                f"--text_columns {' '.join(self.text_columns)}: found {len(self.text_columns)}, "
                f"expected at most {most} for --task_kind {self.task_kind}."
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
            may_be_quoted=True,
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
    labels = task.labels
    examples: Iterable[Example] = _examples(train, task, labels or ())
    if labels is None:
        examples = list(examples)
        labelled = (zip(row.labels, row.where, strict=True) for row in examples)
        labels = classes_of(train, task, chain.from_iterable(labelled))
    train_split = _split(train, examples, task, labels)
    dev_splits = {suffix: read_split(file, task, labels) for suffix, file in dev.items()}
    test_splits = {
        suffix: read_split(file, task, labels, is_test=True) for suffix, file in test.items()
    }
    digest = hashlib.sha256()
    for file in (train, *dev.values(), *test.values()):
        if file.is_file():
            digest.update(file.read_bytes())
    data = TaskData(
        name, task, labels, train_split, dev_splits, test_splits, sha256=digest.hexdigest()
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


@dataclass(frozen=True)
class Example:
    """A row as its file has it. Its label, or for kind `tokens` that of each of its words, stands
    at `where` ("line 3"); a test row has none.
    """

    texts: tuple[str, ...]
    labels: list[str]
    where: list[str]


def read_split(path: Path, task: Task, labels: tuple[str, ...], is_test: bool = False) -> Split:
    """Read one file exactly. The targets of a test file are read only where it has them.

    Raises FinetuneError with file, line, what was found and what was expected.
    """
    return _split(path, _examples(path, task, labels, is_test), task, labels)


def _split(path: Path, examples: Iterable[Example], task: Task, labels: tuple[str, ...]) -> Split:
    texts: list[tuple[str, ...]] = []
    targets: list = []
    target = Targets(task, labels)
    for example in examples:
        texts.append(example.texts)
        ids = []
        for label, where in zip(example.labels, example.where, strict=True):
            try:
                ids.append(target(label))
            except ValueError as error:
                raise FinetuneError(f"{path}, {where}: {error}.") from None
        if ids:
            targets.append(ids if task.kind == "tokens" else ids[0])
    if not texts:
        raise FinetuneError(f"{path}: no rows; expected at least one.")
    if task.kind != "tokens":
        for name, column in zip(task.inputs, zip(*texts, strict=True), strict=True):
            empty = sum(not text.strip() for text in column)
            if empty:
                logger.warning("%s: %s is empty in %d of %d rows", path, name, empty, len(texts))
    return Split(texts, targets or None)


def _examples(
    path: Path, task: Task, labels: tuple[str, ...], is_test: bool = False
) -> Iterator[Example]:
    columns = task.headerless_test if is_test else task.headerless
    if task.kind == "tokens":
        for sentence in _sentences(path, task, columns, labels):
            yield Example(tuple(sentence.words), sentence.tags, sentence.where)
        return
    table = readers.read_table(
        path,
        task.format,
        columns,
        drops_short_rows=task.drops_short_rows,
        may_be_quoted=task.may_be_quoted,
    )
    if not table.columns:
        return
    labelled = not is_test or (bool(columns) and task.label in columns)
    wanted = (*task.inputs, task.label) if labelled else task.inputs
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        raise FinetuneError(
            f"{path}, line 1: no column {', '.join(map(repr, missing))}; found "
            f"{', '.join(map(repr, table.columns))}, expected {', '.join(map(repr, wanted))}."
        )
    twice = [column for column in wanted if table.columns.count(column) > 1]
    if twice:
        raise FinetuneError(f"{path}, line 1: found {twice[0]!r} twice, expected one such column.")
    for where, row in table.rows:
        cells = []
        for column in wanted:
            try:
                cells.append(readers.text_of(row[column]))
            except ValueError as error:
                raise FinetuneError(f"{path}, {where}: {column}: {error}.") from None
        count = len(task.inputs)
        yield Example(tuple(cells[:count]), cells[count:], [where][: len(cells) - count])


def _sentences(
    path: Path, task: Task, columns: tuple[str, ...], labels: tuple[str, ...]
) -> Iterator[Sentence]:
    (word,) = task.inputs
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if task.format is None and suffixes & {".json", ".jsonl"}:
        return read_json_words(path, word, task.label)
    return read_conll(path, columns, word, task.label, labels)


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
