"""What is left of a task once its files are read: rows of text, and class ids or scores."""

from dataclasses import dataclass, replace

import numpy as np

from finetune.tasks.table import Task

MOST_CLASSES = 6  # named in a log line
# One seed for every job, so that the seeds of a sweep train on the same part.
PART_SEED = 0


@dataclass(frozen=True)
class Split:
    """Rows of one file: `texts` holds one tuple per row (for kind `tokens` its words), `targets`
    a class id, a score, or for `tokens` a list of class ids per row; None without labels.
    """

    texts: list[tuple[str, ...]]
    targets: list[int] | list[float] | list[list[int]] | None

    def part(self, rows: int | None) -> "Split":
        """A seeded sample of `rows` rows, in the file's order; all of them if None or fewer."""
        if rows is None or rows >= len(self.texts):
            return self
        order = np.random.default_rng(PART_SEED).permutation(len(self.texts))[:rows]
        kept = sorted(order.tolist())
        targets = None if self.targets is None else [self.targets[index] for index in kept]
        return Split([self.texts[index] for index in kept], targets)


def _flat(targets: list[int] | list[float] | list[list[int]]) -> list[float]:
    """Class ids of rows, or of the words of all rows."""
    return [one for row in targets for one in (row if isinstance(row, list) else [row])]


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

    def describe(self) -> str:
        """Rows of each split and the classes with their shares of the training rows, in a line."""
        splits = {"train": self.train}
        for part, found in (("dev", self.dev), ("test", self.test)):
            splits |= {f"{part}{suffix}": split for suffix, split in found.items()}
        rows = ", ".join(f"{name} {len(split.texts):,}" for name, split in splits.items())
        if self.task.is_regression or not self.train.targets:
            return f"{self.name}: {rows} rows"
        targets = np.asarray(_flat(self.train.targets), dtype=np.int64)
        counts = np.bincount(targets, minlength=len(self.labels)) / len(targets)
        most = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
        classes = ", ".join(f"{self.labels[index]} {counts[index]:.0%}" for index in most)
        more = len(self.labels) - len(most)
        return f"{self.name}: {rows} rows; {classes}" + (f", {more} more classes" * (more > 0))

    def parts(self, train: int | None, dev: int | None, test: int | None) -> "TaskData":
        """At most so many rows of each split: `run_glue.py`'s --max_train_samples and so on."""
        return replace(
            self,
            train=self.train.part(train),
            dev={suffix: split.part(dev) for suffix, split in self.dev.items()},
            test={suffix: split.part(test) for suffix, split in self.test.items()},
        )
