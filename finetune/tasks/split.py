"""What is left of a task once its files are read: rows of text, and class ids or scores."""

from dataclasses import dataclass, replace

import numpy as np

from finetune.tasks.table import Task

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

    def parts(self, train: int | None, dev: int | None, test: int | None) -> "TaskData":
        """At most so many rows of each split: `run_glue.py`'s --max_train_samples and so on."""
        return replace(
            self,
            train=self.train.part(train),
            dev={suffix: split.part(dev) for suffix, split in self.dev.items()},
            test={suffix: split.part(test) for suffix, split in self.test.items()},
        )
