"""Finished jobs summarised over their seeds: a cell per task, method, learning rate and metric."""

import logging
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.results.runs import Run, read_runs
from finetune.tasks import GLUE, TASKS

AVERAGE = "GLUE average"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One task, method, learning rate and metric over its seeds.

    `std` is the sample deviation, 0 for one seed. `failed` counts the seeds that diverged or
    collapsed: their values are in all figures. `train_samples` and `eval_samples` are the rows that
    the jobs trained on and were scored on, `constant` the metric of the most frequent class as the
    answer to each of those.
    `mixed`: the jobs differ in more than the seed.
    """

    task: str
    method: str
    metric: str
    median: float
    std: float
    n: int
    best: float
    values: list[float]
    seeds: list[int]
    learning_rate: float | None = None
    failed: int = 0
    train_samples: int | None = None
    eval_samples: int | None = None
    constant: float | None = None
    mixed: bool = False


def collect(folder: Path) -> list[Cell]:
    """Every finished job under `folder`, grouped; FinetuneError if there is none."""
    groups: dict[tuple[str, str, float | None, str], list[tuple[Run, float]]] = defaultdict(list)
    for run in read_runs(folder):
        for metric, value in run.metrics.items():
            groups[run.task, run.method, run.learning_rate, metric].append((run, value))
    order = {task: index for index, task in enumerate(TASKS)}
    cells = []
    for (task, method, rate, metric), found in groups.items():
        values = [value for _, value in found]
        cells.append(
            Cell(
                task=task,
                method=method,
                metric=metric,
                median=statistics.median(values),
                std=statistics.stdev(values) if len(values) > 1 else 0.0,
                n=len(values),
                best=max(values),
                values=values,
                seeds=[run.seed for run, _ in found],
                learning_rate=rate,
                failed=sum(run.status != "ok" for run, _ in found),
                train_samples=found[0][0].results.get("train_samples"),
                eval_samples=_eval_samples(found[0][0], metric),
                constant=found[0][0].results.get(f"constant_{metric}"),
                mixed=_are_mixed([run for run, _ in found]),
            )
        )
    return sorted(cells, key=lambda cell: order.get(cell.task, len(order)))


def _eval_samples(run: Run, metric: str) -> int | None:
    suffix = "_mm" if metric.endswith("_mm") else ""
    return run.results.get(f"eval_samples{suffix}")


def _are_mixed(runs: Sequence[Run]) -> bool:
    """Whether these seeds' settings differ; says in which."""
    own = ("seed", "start_model")  # each seed starts from the model of the same seed
    settings = [{k: v for k, v in run.settings.items() if k not in own} for run in runs]
    keys = {key for some in settings for key in some}
    differing = sorted(k for k in keys if any(s.get(k) != settings[0].get(k) for s in settings))
    if differing:
        logger.warning(
            "%s: these seeds are of different settings: %s",
            runs[0].folder.parent,
            ", ".join(differing),
        )
    return bool(differing)


def headline(task: str, cells: Sequence[Cell]) -> str:
    """The metric that stands for a task: its first."""
    return next(cell.metric for cell in cells if cell.task == task)


def best_rates(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of each task's and method's best learning rate, by the median of the headline."""
    best: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        key = (cell.task, cell.method)
        if cell.metric == headline(cell.task, cells) and (
            key not in best or cell.median > best[key].median
        ):
            best[key] = cell
    return [
        cell for cell in cells if cell.learning_rate == best[cell.task, cell.method].learning_rate
    ]


def averages(cells: Sequence[Cell]) -> list[Cell]:
    """GLUE's average per method, of medians, for each method that has all of the tasks.

    `RoBERTa`: eight tasks without WNLI, one metric each (MNLI matched). `leaderboard`: nine tasks,
    the mean of a task's metrics and of MNLI's two sets.
    """
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    seeds: dict[str, int] = {}
    for cell in cells:
        found[cell.method, cell.task][cell.metric] = cell.median
        seeds[cell.method] = min(seeds.get(cell.method, cell.n), cell.n)
    counts = {
        "RoBERTa's count": {task: GLUE[task].metrics[:1] for task in GLUE if task != "wnli"},
        "leaderboard's count": {
            task: (*GLUE[task].metrics, *(("accuracy_mm",) if task == "mnli" else ()))
            for task in GLUE
        },
    }
    made = []
    for method, n in seeds.items():
        for name, tasks in counts.items():
            if all(set(metrics) <= set(found[method, task]) for task, metrics in tasks.items()):
                value = statistics.mean(
                    statistics.mean(found[method, task][metric] for metric in metrics)
                    for task, metrics in tasks.items()
                )
                made.append(
                    Cell(
                        task=AVERAGE,
                        method=method,
                        metric=name,
                        median=value,
                        std=0.0,
                        n=n,
                        best=value,
                        values=[value],
                        seeds=[],
                    )
                )
    return made
