"""`python -m finetune.glue compare DIR OTHER`: is the second folder's checkpoint better?

Jobs are paired by task, method, learning rate and seed: a pair shares the order of the data and,
for encoders of one width, the head it began with. Per task, Student's paired t-test over the
seeds, the p-values corrected for the number of tasks (Benjamini-Hochberg); over all pairs, the
permutation test that flips the signs of the differences.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import false_discovery_control, permutation_test, ttest_rel

from finetune.console import CommandParser
from finetune.errors import FinetuneError
from finetune.files import write_text
from finetune.results.runs import Run, read_runs

LEVEL = 0.05
Key = tuple[str, str, float | None, int]


@dataclass(frozen=True)
class Pairs:
    """One task and method: the headline metric of both checkpoints, seed by seed [n]."""

    task: str
    method: str
    metric: str
    first: np.ndarray
    second: np.ndarray

    @property
    def difference(self) -> float:
        """Mean of second less first."""
        return float(np.mean(self.second - self.first))

    def p_value(self) -> float | None:
        """Two-sided paired t-test; None for a single seed, 1 where nothing differs."""
        differences = self.second - self.first
        if len(differences) < 2:
            return None
        if np.ptp(differences) == 0:
            return 1.0 if differences[0] == 0 else 0.0
        return float(ttest_rel(self.second, self.first).pvalue)


def pair(first: Sequence[Run], second: Sequence[Run]) -> list[Pairs]:
    """The jobs that both have; FinetuneError if there is none."""
    found: dict[Key, Run] = {_key(run): run for run in second}
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for run in first:
        other = found.get(_key(run))
        metric = next(iter(run.metrics), "")
        if other is not None and metric in other.metrics:
            values = (run.metrics[metric], other.metrics[metric])
            groups[run.task, run.method, metric].append(values)
    if not groups:
        raise FinetuneError(
            "The folders share no job: a pair needs the same task, method, learning rate and seed."
        )
    return [Pairs(*key, *np.array(values).T) for key, values in groups.items()]


def _key(run: Run) -> Key:
    return run.task, run.method, run.learning_rate, run.seed


def overall(pairs: Sequence[Pairs]) -> tuple[float, float]:
    """Mean difference over all pairs, and the two-sided p-value of the sign-flip test."""
    differences = np.concatenate([p.second - p.first for p in pairs])
    if len(differences) < 2 or not differences.any():
        # A single difference is as far from 0 with either sign.
        return float(np.mean(differences)), 1.0
    test = permutation_test(
        (differences,),
        lambda values, axis: np.mean(values, axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(np.mean(differences)), float(test.pvalue)


def to_markdown(pairs: Sequence[Pairs], names: tuple[str, str]) -> str:
    """A row per task and method, and what it means in words."""
    values = [p.p_value() for p in pairs]
    tested = [value for value in values if value is not None]
    corrected = iter(false_discovery_control(tested) if tested else [])
    lines = [
        f"A: {names[0]}, B: {names[1]}. Means over pairs of equal seeds, in percent.",
        "",
        "| task | method | metric | n | A | B | B - A | p | in words |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for p, value in zip(pairs, values, strict=True):
        adjusted = None if value is None else float(next(corrected))
        shown = "–" if adjusted is None else f"{adjusted:.3f}"
        lines.append(
            f"| {p.task} | {p.method} | {p.metric} | {len(p.first)} | {100 * p.first.mean():.1f} | "
            f"{100 * p.second.mean():.1f} | {100 * p.difference:+.1f} | {shown} | "
            f"{_words(p.difference, adjusted)} |"
        )
    difference, value = overall(pairs)
    count = sum(len(p.first) for p in pairs)
    lines += [
        "",
        f"Over all {count} pairs B - A is {100 * difference:+.2f} points on average: "
        f"{_words(difference, value)} (p = {value:.3f}, sign-flip permutation test). Per task: "
        "paired t-test, p corrected for the number of tasks (Benjamini-Hochberg).",
    ]
    if count < 6:
        lines[-1] += f" {count} pairs can't give p < 0.05 in the permutation test; six can."
    return "\n".join([*lines, ""])


def _words(difference: float, p_value: float | None) -> str:
    if p_value is None:
        return "one seed says nothing about chance"
    if p_value >= LEVEL:
        return "no difference shown"
    return "B is better" if difference > 0 else "B is worse"


def main(command: Sequence[str]) -> None:
    """The subcommand: `compare DIR OTHER [--output FILE.md]`."""
    parser = CommandParser(prog="python -m finetune.glue compare", description=__doc__)
    parser.add_argument("folders", nargs=2, type=Path, metavar="DIR")
    parser.add_argument("--output", type=Path, help="write the markdown there, too")
    options = parser.parse_args(command)
    first, second = options.folders
    markdown = to_markdown(pair(read_runs(first), read_runs(second)), (str(first), str(second)))
    if options.output:
        write_text(options.output, markdown)
    print(markdown, end="")
