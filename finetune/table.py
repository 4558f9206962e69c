"""`python -m finetune.glue table DIR`: median, standard deviation and n per task and method.

Reads the `all_results.json` of every finished job under DIR (`TASK/METHOD/seed-N`) and writes
`table.md`, `table.csv` and `table.json` there; the markdown also goes to standard output.
"""

import csv
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune.errors import FinetuneError
from finetune.files import write_json, write_text
from finetune.tasks import TASKS


@dataclass(frozen=True)
class Cell:
    """One task, method and metric over its seeds; `std` is the sample deviation, 0 for one seed."""

    task: str
    method: str
    metric: str
    median: float
    std: float
    n: int
    values: list[float]


def collect(folder: Path) -> list[Cell]:
    """Every finished job under `folder`, grouped; FinetuneError if there is none."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for path in sorted(folder.glob("*/*/seed-*/all_results.json")):
        task, method = path.parts[-4:-2]
        results = json.loads(path.read_text(encoding="utf-8"))
        if task not in TASKS:
            continue
        for metric in TASKS[task].metrics:
            for key in (f"eval_{metric}", f"eval_{metric}_mm"):
                if key in results:
                    values[task, method, key.removeprefix("eval_")].append(results[key])
    if not values:
        raise FinetuneError(
            f"{folder}: no finished job; expected TASK/METHOD/seed-N/all_results.json, as "
            "`python -m finetune.glue --output_dir` writes them."
        )
    return [
        Cell(
            *key,
            median=statistics.median(found),
            std=statistics.stdev(found) if len(found) > 1 else 0.0,
            n=len(found),
            values=found,
        )
        for key, found in values.items()
    ]


def to_markdown(cells: Sequence[Cell]) -> str:
    """One row per task and metric, one column per method; figures times 100."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    rows: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for cell in cells:
        text = f"{100 * cell.median:.1f} ± {100 * cell.std:.1f} (n={cell.n})"
        rows[cell.task, cell.metric][cell.method] = text
    lines = [
        "| task | metric | " + " | ".join(methods) + " |",
        "| --- | --- |" + " --- |" * len(methods),
    ]
    for (task, metric), texts in rows.items():
        figures = " | ".join(texts.get(method, "–") for method in methods)
        lines.append(f"| {task} | {metric} | {figures} |")
    return "\n".join([*lines, "", "Median ± standard deviation over seeds, in percent.", ""])


def to_csv(cells: Sequence[Cell]) -> str:
    """task, method, metric, median, std, n; full precision, between 0 and 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "method", "metric", "median", "std", "n"])
    for cell in cells:
        writer.writerow([cell.task, cell.method, cell.metric, cell.median, cell.std, cell.n])
    return text.getvalue()


def main(command: Sequence[str]) -> None:
    """The subcommand: `table DIR`."""
    if len(command) != 1 or command[0].startswith("-"):
        raise FinetuneError("usage: python -m finetune.glue table DIR")
    folder = Path(command[0])
    cells = collect(folder)
    markdown = to_markdown(cells)
    write_text(folder / "table.md", markdown)
    write_text(folder / "table.csv", to_csv(cells))
    write_json(folder / "table.json", [asdict(cell) for cell in cells])
    print(markdown, end="")
