"""`python -m finetune.glue submission DIR --output FILE.zip`: the eleven files of the GLUE server.

Of each task's finished jobs with predictions, the one with the best dev score; AX is predicted by
MNLI's. A task without one gets a constant (`baseline` in the table of tasks), and is named. Rows,
labels and order are checked before anything is written.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from finetune.console import CommandParser
from finetune.errors import FinetuneError
from finetune.results.runs import Run, read_runs
from finetune.tasks import GLUE, File, Task

HEADER = "index\tprediction"


def chosen_run(runs: Sequence[Run], task: str) -> Run | None:
    """The job of `task` with predictions whose dev score is best."""
    with_predictions = [
        run
        for run in runs
        if run.task == task and (run.folder / f"predict_results_{task}.txt").is_file()
    ]
    return max(
        with_predictions,
        key=lambda run: next(iter(run.metrics.values()), float("-inf")),
        default=None,
    )


def read_predictions(path: Path, task: Task, file: File) -> list[str]:
    """Predictions in order; FinetuneError unless they are what the server takes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    if lines[:1] != [HEADER] or [row[0] for row in rows] != [str(i) for i in range(len(rows))]:
        raise FinetuneError(f"{path}: expected the header {HEADER!r} and an index from 0 on.")
    if len(rows) != file.rows:
        raise FinetuneError(
            f"{path}: {len(rows)} predictions; the server expects {file.rows} in {file.submission}."
            " Predict the whole official test set (no --max_predict_samples)."
        )
    values = [row[-1] for row in rows]
    if task.is_regression:
        return [f"{min(5.0, max(0.0, _number(path, value))):.3f}" for value in values]
    wrong = sorted(set(values) - set(task.labels or ()))
    if wrong:
        raise FinetuneError(
            f"{path}: found the labels {wrong}, expected {', '.join(task.labels or ())}."
        )
    return values


def _number(path: Path, text: str) -> float:
    value = float(text)
    if value != value:
        raise FinetuneError(f"{path}: a prediction is no number; that run diverged.")
    return value


def make_submission(runs: Sequence[Run]) -> tuple[dict[str, str], list[str]]:
    """The eleven files' texts by name, and a line on each saying where it comes from."""
    files, notes = {}, []
    for name, task in GLUE.items():
        run = chosen_run(runs, name)
        for suffix, file in task.test.items():
            path = run.folder / f"predict_results_{name}{suffix}.txt" if run else None
            if path is not None and path.is_file():
                values = read_predictions(path, task, file)
                notes.append(f"{file.submission}: {path}")
            else:
                assert file.rows is not None
                values = [task.baseline] * file.rows
                notes.append(f"{file.submission}: no predictions; {task.baseline} for every row")
            lines = [HEADER, *(f"{index}\t{value}" for index, value in enumerate(values))]
            files[file.submission] = "\n".join(lines) + "\n"
    return files, notes


def main(command: Sequence[str]) -> None:
    """The subcommand: `submission DIR --output FILE.zip`."""
    parser = CommandParser(prog="python -m finetune.glue submission", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, help="the .zip to write")
    parser.add_argument("--method", help="only jobs of this method")
    options = parser.parse_args(command)
    runs = [run for run in read_runs(options.folder) if options.method in (None, run.method)]
    files, notes = make_submission(runs)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(files.items()):
            # A fixed date: the same predictions give the same bytes.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    partial = options.output.with_name(f"{options.output.name}.partial")
    partial.write_bytes(content.getvalue())
    partial.replace(options.output)
    print("\n".join([*notes, f"written: {options.output}"]))
