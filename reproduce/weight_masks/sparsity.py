"""Dev score against initial sparsity, the share of zeros that masks start with (paper, figure 1).

Masks are trained for every share of the grid, task and seed; everything else is the flags'. The
claim holds for a task if, of the medians over seeds, the best one at 10 % or less is within a
standard deviation of the best at all, and the highest share is lower by more than both deviations;
one seed decides nothing.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from finetune.errors import FinetuneError
from finetune.jobs.train import Job
from finetune.masks.folder import read_config
from reproduce.weight_masks.finding import Finding, publish, verdict
from reproduce.weight_masks.flags import FigureFlags, read_command
from reproduce.weight_masks.picture import curve, metric_of, panels
from reproduce.weight_masks.runs import describe, outcome, sweep

SMALL = 0.1


@dataclass
class SparsityFlags(FigureFlags):
    """The grid."""

    initial_sparsity: list[float] = field(
        default_factory=lambda: [0.01, 0.03, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95],
        metadata={"help": "shares of zeros at the start, between 0 and 1"},
    )


def main(command: Sequence[str]) -> None:
    """The subcommand."""
    flags, words = read_command("sparsity", SparsityFlags, command, __doc__)
    grid = sorted(set(flags.initial_sparsity))
    if len(grid) < 2 or not all(0 < share < 1 for share in grid):
        raise FinetuneError(
            f"--initial_sparsity: found {grid}, expected two shares or more between 0 and 1."
        )
    names = {f"{share:g}": share for share in grid}
    cells = {name: ["--initial_sparsity", repr(share)] for name, share in names.items()}
    inputs, jobs = sweep(words, cells, flags.output_dir / "runs-sparsity")
    rows = [_row(job, names[name]) for name, found in jobs.items() for job in found]
    every = [job for found in jobs.values() for job in found]
    publish(flags.output_dir, conclude(rows, describe(inputs, every)), rows, draw(rows))


def _row(job: Job, share: float) -> dict[str, Any]:
    run = outcome(job)
    metric, score = next(iter(run.metrics.items()))
    return {
        "task": job.task,
        "metric": metric,
        "initial_sparsity": share,
        "seed": job.seed,
        "score": score,
        "final_sparsity": final_sparsity(job),
        "status": run.status,
    }


def final_sparsity(job: Job) -> float:
    """Share of zeros over all of the trained mask's bits."""
    config = read_config(job.folder)
    assert config.shapes is not None and config.sparsity is not None
    counts = {name: math.prod(shape) for name, shape in config.shapes.items()}
    zeros = sum(config.sparsity[name] * count for name, count in counts.items())
    return zeros / sum(counts.values())


def by_share(rows: Sequence[dict[str, Any]], task: str) -> dict[float, list[float]]:
    """Scores of the seeds by initial sparsity, ascending."""
    shares = sorted({row["initial_sparsity"] for row in rows if row["task"] == task})
    return {
        share: [r["score"] for r in rows if (r["task"], r["initial_sparsity"]) == (task, share)]
        for share in shares
    }


def conclude(rows: Sequence[dict[str, Any]], setting: str) -> Finding:
    """The finding from the rows of the CSV."""
    holds: list[bool | None] = []
    seen = []
    for task in dict.fromkeys(row["task"] for row in rows):
        scores = by_share(rows, task)
        median = {share: statistics.median(values) for share, values in scores.items()}
        spread = {s: statistics.stdev(v) if len(v) > 1 else 0.0 for s, v in scores.items()}
        best, highest = max(median, key=median.__getitem__), max(median)
        small = max((s for s in median if s <= SMALL), key=median.__getitem__, default=None)
        seen.append(
            f"{task}: best {100 * median[best]:.1f} at {100 * best:g} %, "
            f"{100 * median[highest]:.1f} at {100 * highest:g} %"
        )
        if small is None or highest <= SMALL or min(map(len, scores.values())) < 2:
            holds.append(None)
            continue
        small_suffices = median[best] - median[small] <= spread[best]
        lower = median[small] - median[highest] > spread[small] + spread[highest]
        holds.append(small_suffices and lower)
    return Finding(
        "sparsity",
        "A small share of zeros at the start serves best; a large one costs score.",
        "Figure 1, BERT; 5 % is what all its other experiments start with.",
        "; ".join(seen),
        setting,
        "At 10 % or less within a standard deviation of the best; at the highest share lower by "
        "more than both deviations.",
        verdict(holds),
    )


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """A panel per task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, axes = panels(tasks)
    for axis, task in zip(axes[0], tasks, strict=True):
        scores = by_share(rows, task)
        curve(axis, scores, "median", "C0")
        axis.set_xscale("logit")
        axis.set_xticks(list(scores))
        axis.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        axis.minorticks_off()
        axis.tick_params(axis="x", labelsize=7)
        axis.set(xlabel="zeros at the start, %", ylabel=metric_of(rows, task))
    return figure
