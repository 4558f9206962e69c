"""`python -m finetune.glue table DIR`: median, standard deviation, n and best per task and method.

Reads every finished job under DIR and writes `table.md`, `table.csv`, `table.json` and `table.png`
there; the markdown also goes to standard output. Of several learning rates the one with the best
median counts, as in RoBERTa's paper; all of them follow in a table of their own.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from finetune.console import CommandParser
from finetune.files import write_json, write_text
from finetune.results.cells import AVERAGE, Cell, averages, best_rates, collect, headline
from finetune.results.plot import draw
from finetune.results.runs import unfinished
from finetune.tasks import GLUE, TASKS


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
    beside: dict[tuple[str, str], tuple[str, str]] = defaultdict(lambda: ("", ""))
    for cell in [*chosen, *averages(chosen)]:
        rows[cell.task, cell.metric][cell.method] = _figure(cell)
        trained[cell.task] = _rows_of(cell)
        beside[cell.task, cell.metric] = (
            "" if cell.eval_samples is None else f"{cell.eval_samples:,}",
            "" if cell.constant is None else f"{100 * cell.constant:.1f}",
        )
    for task, method in planned:
        if (task, method) not in {(cell.task, cell.method) for cell in chosen}:
            first = TASKS[task].metrics[0] if task in TASKS else ""
            metric = next((m for t, m in rows if t == task), first)
            rows[task, metric][method] = "not finished"
            trained.setdefault(task, "")
    lines = [
        "| task | metric | train rows | dev rows | constant | " + " | ".join(methods) + " |",
        "| --- | --- | ---: | ---: | ---: |" + " --- |" * len(methods),
    ]
    for (task, metric), texts in rows.items():
        figures = " | ".join(texts.get(method, "–") for method in methods)
        dev, constant = beside[task, metric]
        lines.append(f"| {task} | {metric} | {trained[task]} | {dev} | {constant} | {figures} |")
    several = any(cell.n > 1 for cell in chosen)
    lines += [
        "",
        ("Median ± standard deviation over seeds" if several else "One seed each")
        + ", in percent. *constant*: the most frequent class as the answer to every row.",
    ]
    if any(cell.failed for cell in chosen):
        lines[-1] += (
            " †: seeds that failed, counted in the figures: diverged (a loss that is no number) or "
            "collapsed (one answer to every row)."
        )
    missing = [task for task in GLUE if task != "wnli" and task not in {c.task for c in chosen}]
    if missing and len(missing) < len(GLUE) - 1:
        lines[-1] += f" No GLUE average without {', '.join(missing)}."
    mixed = [f"{cell.task}, {cell.method}" for cell in chosen if cell.mixed]
    if mixed:
        lines[-1] += f" Seeds of other settings than each other: {'; '.join(dict.fromkeys(mixed))}."
    if waiting:
        lines[-1] += f" Not finished: {waiting} job{'s' * (waiting > 1)}."
    return "\n".join([*lines, *_rates(cells), ""])


def _figure(cell: Cell) -> str:
    if cell.task == AVERAGE:
        return f"{100 * cell.median:.1f} (n={cell.n})"
    failed = f", {cell.failed} failed †" if cell.failed else ""
    if cell.n == 1:
        return f"{100 * cell.median:.1f} (n=1{failed})"
    text = f"{100 * cell.median:.1f} ± {100 * cell.std:.1f} (n={cell.n}{failed})"
    return f"{text}, best {100 * cell.best:.1f}"


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
    from finetune.jobs.arguments import Layers, make_parser, parse, task_names

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
    draw(best_rates(cells), folder / "table.png")
    print(markdown, end="")
