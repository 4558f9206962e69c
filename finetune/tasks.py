"""The table of tasks: columns, labels and their order, metrics, files; and how a split is read.

Owns everything that differs between tasks, so that no other file names one. GLUE conventions and
traps: the official TSVs (no quoting at all, CoLA without a header, a byte order mark in MRPC, QQP
rows with missing columns); label orders and metrics as in the Hub's `glue` and `run_glue.py`.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from finetune.errors import FinetuneError

logger = logging.getLogger(__name__)

ENTAILMENT = ("entailment", "not_entailment")
BINARY = ("0", "1")


@dataclass(frozen=True)
class Task:
    """One row of the table.

    `labels` is the order of the classes; empty for regression, None to read them (sorted) from
    the training file. `dev` and `test` map the suffix of a split's results ("" or "-mm") to its
    file. `headerless` names the columns of files that have no header line. `hub` holds the input
    columns of the same task in the Hub's `glue`, empty if it isn't there.
    """

    folder: str
    inputs: tuple[str, ...]
    label: str = "label"
    labels: tuple[str, ...] | None = BINARY
    metrics: tuple[str, ...] = ("accuracy",)
    dev: Mapping[str, str] = field(default_factory=lambda: {"": "dev.tsv"})
    test: Mapping[str, str] = field(default_factory=lambda: {"": "test.tsv"})
    headerless: tuple[str, ...] = ()
    drops_short_rows: bool = False
    hub: tuple[str, ...] = ()

    @property
    def is_regression(self) -> bool:
        """True for a score instead of classes (STS-B)."""
        return self.labels == ()


PAIR = ("sentence1", "sentence2")
GLUE = {
    "cola": Task(
        "CoLA",
        ("sentence",),
        metrics=("matthews_correlation",),
        headerless=("source", "label", "mark", "sentence"),
        hub=("sentence",),
    ),
    "sst2": Task("SST-2", ("sentence",), hub=("sentence",)),
    "mrpc": Task(
        "MRPC",
        ("#1 String", "#2 String"),
        label="Quality",
        metrics=("accuracy", "f1"),
        hub=PAIR,
    ),
    "stsb": Task(
        "STS-B", PAIR, label="score", labels=(), metrics=("pearson", "spearmanr"), hub=PAIR
    ),
    "qqp": Task(
        "QQP",
        ("question1", "question2"),
        label="is_duplicate",
        metrics=("accuracy", "f1"),
        drops_short_rows=True,
        hub=("question1", "question2"),
    ),
    "mnli": Task(
        "MNLI",
        PAIR,
        label="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        dev={"": "dev_matched.tsv", "-mm": "dev_mismatched.tsv"},
        test={"": "test_matched.tsv", "-mm": "test_mismatched.tsv"},
        hub=("premise", "hypothesis"),
    ),
    "qnli": Task("QNLI", ("question", "sentence"), labels=ENTAILMENT, hub=("question", "sentence")),
    "rte": Task("RTE", PAIR, labels=ENTAILMENT, hub=PAIR),
    "wnli": Task("WNLI", PAIR, hub=PAIR),
}
# The tasks the pipeline cuts from the demo's own text; they are not GLUE.
DEMO = {
    "library": Task("library", ("sentence",), labels=None),
    "same_docstring": Task("same_docstring", PAIR, labels=("different", "same")),
}
TASKS = {**GLUE, **DEMO}


@dataclass(frozen=True)
class Split:
    """Rows of one file: `texts` holds one tuple per row, `targets` class ids, scores or None."""

    texts: list[tuple[str, ...]]
    targets: list[int] | list[float] | None


@dataclass(frozen=True)
class TaskData:
    """A task with its rows. `sha256` is over the bytes of every file read ("hub" if from there)."""

    name: str
    task: Task
    labels: tuple[str, ...]
    train: Split
    dev: dict[str, Split]
    test: dict[str, Split]
    sha256: str


def find_task(name: str) -> Task:
    """The task called `name`; an unknown one raises FinetuneError with the nearest names."""
    if name in TASKS:
        return TASKS[name]
    near = get_close_matches(name, TASKS, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise FinetuneError(f"--task_name {name}: no such task.{hint} There are: {', '.join(TASKS)}.")


def load_task(name: str, data_dir: Path | None, with_test: bool = False) -> TaskData:
    """Read every split of task `name` from `data_dir` (GLUE layout), or from the Hub if None."""
    task = find_task(name)
    if data_dir is None:
        return _load_from_hub(name, task, with_test)
    folder = data_dir / task.folder
    files = [folder / "train.tsv", *(folder / file for file in task.dev.values())]
    if with_test:
        files += [folder / file for file in task.test.values()]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    labels = task.labels
    if labels is None:
        labels = _labels_of(folder / "train.tsv", task)
    return TaskData(
        name,
        task,
        labels,
        read_split(folder / "train.tsv", task, labels),
        _read_splits(folder, task.dev, task, labels),
        _read_splits(folder, task.test, task, labels, is_test=True) if with_test else {},
        digest.hexdigest(),
    )


def _read_splits(
    folder: Path,
    files: Mapping[str, str],
    task: Task,
    labels: tuple[str, ...],
    is_test: bool = False,
) -> dict[str, Split]:
    """Every split in `files`; only the main one (suffix "") has to be there."""
    splits = {}
    for suffix, file in files.items():
        if suffix and not (folder / file).is_file():
            logger.warning("%s is not there: no results for %s%s", file, task.folder, suffix)
            continue
        splits[suffix] = read_split(folder / file, task, labels, is_test)
    return splits


def read_split(path: Path, task: Task, labels: tuple[str, ...], is_test: bool = False) -> Split:
    """Read one TSV exactly: split on tabs, no quoting, nothing stripped but the line end.

    Raises FinetuneError with file, line, what was found and what was expected.
    """
    texts: list[tuple[str, ...]] = []
    targets: list[float] = []
    for number, row in _rows(path, task, is_test):
        texts.append(tuple(row[column] for column in task.inputs))
        if not is_test:
            targets.append(_target(row[task.label], task, labels, path, number))
    if not texts:
        raise FinetuneError(f"{path}: no rows; expected at least one.")
    if is_test:
        return Split(texts, None)
    return Split(texts, targets if task.is_regression else [int(target) for target in targets])


def _target(text: str, task: Task, labels: tuple[str, ...], path: Path, number: int) -> float:
    if task.is_regression:
        try:
            return float(text)
        except ValueError:
            raise FinetuneError(
                f"{path}, line {number}: {task.label} is {text!r}, expected a number."
            ) from None
    if text not in labels:
        raise FinetuneError(
            f"{path}, line {number}: {task.label} is {text!r}, expected one of {', '.join(labels)}."
        )
    return labels.index(text)


def _labels_of(path: Path, task: Task) -> tuple[str, ...]:
    return tuple(sorted({row[task.label] for _, row in _rows(path, task, False)}))


def _rows(path: Path, task: Task, is_test: bool):  # type: ignore[no-untyped-def]
    """Yield (line number, {column: text}) of each data row."""
    try:
        # utf-8-sig drops a byte order mark; newline="\n" keeps every other line-like character.
        lines = path.open(encoding="utf-8-sig", newline="\n")
    except OSError as error:
        raise FinetuneError(
            f"{path}: {error.strerror}. --data_dir must hold GLUE's folders "
            f"(here {task.folder}/ with train.tsv and {', '.join(task.dev.values())})."
        ) from None
    dropped = 0
    with lines:
        columns = task.headerless if not is_test else ()
        first = 1
        if not columns:
            columns = tuple(lines.readline().rstrip("\r\n").split("\t"))
            first = 2
        wanted = task.inputs if is_test else (*task.inputs, task.label)
        missing = [column for column in wanted if column not in columns]
        if missing:
            raise FinetuneError(
                f"{path}, line 1: no column {', '.join(map(repr, missing))}; "
                f"found {', '.join(map(repr, columns))}, expected {', '.join(map(repr, wanted))}."
            )
        for number, line in enumerate(lines, start=first):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) == len(columns):
                yield number, dict(zip(columns, fields, strict=True))
            elif task.drops_short_rows and not is_test:
                dropped += 1
            else:
                raise FinetuneError(
                    f"{path}, line {number}: {len(fields)} fields, expected {len(columns)} "
                    f"({', '.join(columns)})."
                )
    if dropped:
        logger.warning("%s: %d rows without %d fields dropped", path, dropped, len(columns))


def _load_from_hub(name: str, task: Task, with_test: bool) -> TaskData:
    if not task.hub:
        raise FinetuneError(f"--task_name {name}: not on the Hub; give its folder with --data_dir.")
    import datasets  # half a second that local files don't need

    try:
        hub = datasets.load_dataset("nyu-mll/glue", name)
    except Exception as error:
        raise FinetuneError(
            f"GLUE task {name} could not be fetched from the Hub: {error}. "
            "Give a local copy in GLUE's layout with --data_dir."
        ) from error
    names = {"": "", "-mm": "_mismatched"} if len(task.dev) > 1 else {"": ""}
    main = "_matched" if len(task.dev) > 1 else ""

    def split(rows: datasets.Dataset, is_test: bool = False) -> Split:
        texts = list(zip(*(rows[column] for column in task.hub), strict=True))
        return Split(texts, None if is_test else list(rows["label"]))

    # Class ids need no mapping: our label orders are the Hub's.
    return TaskData(
        name,
        task,
        task.labels or (),
        split(hub["train"]),
        {suffix: split(hub[f"validation{tail or main}"]) for suffix, tail in names.items()},
        {suffix: split(hub[f"test{tail or main}"], True) for suffix, tail in names.items()}
        if with_test
        else {},
        "hub",
    )
