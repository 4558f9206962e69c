"""`python -m finetune.glue table DIR`: median, standard deviation, n and best per task and method.

Reads every finished job under DIR and writes `table.md`, `table.csv`, `table.json` and `table.png`
there; the markdown also goes to standard output. Of several learning rates the one with the best
median counts, as in RoBERTa's paper; all of them follow in a table of their own.
"""

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from finetune.console import CommandParser
from finetune.files import write_json, write_text
from finetune.results import Run, read_runs, unfinished
from finetune.tasks import GLUE, TASKS

AVERAGE = "GLUE average"


@dataclass(frozen=True)
class Cell:
    """One task, method, learning rate and metric over its seeds.

    `std` is the sample deviation, 0 for one seed. `failed` counts the seeds that diverged or
    collapsed: their values are in all figures. `train_samples` is what the jobs trained on.
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
                task,
                method,
                metric,
                statistics.median(values),
                statistics.stdev(values) if len(values) > 1 else 0.0,
                len(values),
                max(values),
                values,
                [run.seed for run, _ in found],
                rate,
                sum(run.status != "ok" for run, _ in found),
                found[0][0].results.get("train_samples"),
            )
        )
    return sorted(cells, key=lambda cell: order.get(cell.task, len(order)))


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
                made.append(Cell(AVERAGE, method, name, value, 0.0, n, value, [value], []))
    return made


def to_markdown(
    cells: Sequence[Cell], waiting: int = 0, planned: Sequence[tuple[str, str]] = ()
) -> str:
    """One row per task and metric, one column per method; figures times 100.

    `waiting` jobs were begun; of the (task, method) pairs `planned` those without a result are
    said to be unfinished.
    """
    chosen = best_rates(cells)
    methods = list(dict.fromkeys([*(cell.method for cell in cells), *(m for _, m in planned)]))
    rows: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    trained: dict[str, str] = {}
    for cell in [*chosen, *averages(chosen)]:
        rows[cell.task, cell.metric][cell.method] = _figure(cell)
        trained[cell.task] = _rows_of(cell)
    for task, method in planned:
        if (task, method) not in {(cell.task, cell.method) for cell in chosen}:
            metric = next((m for t, m in rows if t == task), TASKS[task].metrics[0])
            rows[task, metric][method] = "not finished"
            trained.setdefault(task, "")
    lines = [
        "| task | metric | train rows | " + " | ".join(methods) + " |",
        "| --- | --- | ---: |" + " --- |" * len(methods),
    ]
    for (task, metric), texts in rows.items():
        figures = " | ".join(texts.get(method, "–") for method in methods)
        lines.append(f"| {task} | {metric} | {trained[task]} | {figures} |")
    lines += ["", "Median ± standard deviation over seeds, in percent."]
    if any(cell.failed for cell in chosen):
        lines[-1] += (
            " †: seeds that failed, counted in the figures: diverged (a loss that is no number) or "
            "collapsed (one answer to every row)."
        )
    missing = [task for task in GLUE if task != "wnli" and task not in {c.task for c in chosen}]
    if missing and len(missing) < len(GLUE) - 1:
        lines[-1] += f" No GLUE average without {', '.join(missing)}."
    if waiting:
        lines[-1] += f" {waiting} jobs are not finished."
    return "\n".join([*lines, *_rates(cells), ""])


def _figure(cell: Cell) -> str:
    if cell.task == AVERAGE:
        return f"{100 * cell.median:.1f} (n={cell.n})"
    failed = f", {cell.failed} failed †" if cell.failed else ""
    text = f"{100 * cell.median:.1f} ± {100 * cell.std:.1f} (n={cell.n}{failed})"
    return f"{text}, best {100 * cell.best:.1f}" if cell.n > 1 else text


def _rows_of(cell: Cell) -> str:
    if cell.train_samples is None:
        return ""
    official = TASKS[cell.task].train.rows if cell.task in TASKS else None
    part = f" of {official:,}" if official not in (None, cell.train_samples) else ""
    return f"{cell.train_samples:,}{part}"


def _rates(cells: Sequence[Cell]) -> list[str]:
    """A second table, if learning rates were swept."""
    swept = [cell for cell in cells if cell.learning_rate is not None]
    swept = [cell for cell in swept if cell.metric == headline(cell.task, cells)]
    if not swept:
        return []
    lines = ["", "| task | method | learning rate | metric | |", "| --- | --- | ---: | --- | --- |"]
    for cell in sorted(swept, key=lambda cell: (cell.task, cell.method, cell.learning_rate)):
        rate = f"{cell.learning_rate:g}"
        lines.append(f"| {cell.task} | {cell.method} | {rate} | {cell.metric} | {_figure(cell)} |")
    return lines


def to_csv(cells: Sequence[Cell]) -> str:
    """A row per cell, full precision, between 0 and 1; seeds and values joined by spaces."""
    text = io.StringIO()
    names = [field.name for field in fields(Cell)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for cell in cells:
        row = asdict(cell)
        writer.writerow(
            " ".join(map(str, row[name])) if isinstance(row[name], list) else row[name]
            for name in names
        )
    return text.getvalue()


def planned_by(config: Path | None) -> list[tuple[str, str]]:
    """The tasks and methods that a sweep's config file names."""
    if config is None:
        return []
    from finetune.arguments import Layers, make_parser, parse, task_names

    parser = make_parser()
    first = parse(parser, [*Layers.read(config, parser).base, "--model_name_or_path", ""])
    return [(task, method) for task in task_names(first) for method in first.method]


def main(command: Sequence[str]) -> None:
    """The subcommand: `table DIR [--config FILE]`."""
    parser = CommandParser(prog="python -m finetune.glue table", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--config", type=Path, help="the sweep's: names what isn't finished")
    options = parser.parse_args(command)
    folder = options.folder
    cells = collect(folder)
    markdown = to_markdown(cells, unfinished(folder), planned_by(options.config))
    everything = [*cells, *averages(best_rates(cells))]
    write_text(folder / "table.md", markdown)
    write_text(folder / "table.csv", to_csv(everything))
    write_json(folder / "table.json", [asdict(cell) for cell in everything])
    from finetune.plot import draw  # a second that the figures don't need

    draw(best_rates(cells), folder / "table.png")
    print(markdown, end="")
