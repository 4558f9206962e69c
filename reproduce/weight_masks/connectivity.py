"""Mode connectivity: score and loss between the masked and the finetuned minimum (paper, figures 6
and 7).

A straight path and a quadratic Bézier curve (`paths.py`) from the masked (g = 0) to the finetuned
run (g = 1) of equal task and seed, evaluated on the dev rows at an even grid and at both ends. The
barrier of a path is the lower of its ends' scores less the lowest on it, between the ends. The
claim, that a line of nearly constant accuracy connects them, holds for a task if the median barrier
of the straight path is 2 points or less.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from finetune.errors import FinetuneError
from reproduce.weight_masks.finding import Finding, publish, verdict
from reproduce.weight_masks.flags import RunFlags, read_command
from reproduce.weight_masks.forward import logits, loss, score
from reproduce.weight_masks.parts import once
from reproduce.weight_masks.paths import (
    Bezier,
    Segment,
    Training,
    move,
    point,
    require_same_shape,
    train_bend,
)
from reproduce.weight_masks.picture import curve, legend_below, metric_of, panels
from reproduce.weight_masks.runs import Runs, obtain

PATHS = {"line": "C0", "bezier": "C3"}
FLAT = 0.02


@dataclass
class ConnectivityFlags(RunFlags):
    """The grid, and the training of the curve's bend."""

    points: int = field(default=21, metadata={"help": "of the grid, from --start to --stop"})
    start: float = field(
        default=0.0, metadata={"help": "g of the first; below 0 shows the wall behind the mask"}
    )
    stop: float = field(
        default=1.0, metadata={"help": "g of the last; above 1 the one behind finetuning"}
    )
    bend_steps: int = field(default=200, metadata={"help": "training steps of the Bézier bend"})
    bend_learning_rate: float = field(default=5e-5, metadata={"help": "Adam's, constant"})
    bend_batch_size: int = field(default=32, metadata={"help": "rows per step"})

    def grid(self) -> list[float]:
        """Ascending places, both ends always among them."""
        if self.points < 2 or self.start >= self.stop:
            raise FinetuneError(
                f"--points {self.points} --start {self.start:g} --stop {self.stop:g}: expected two "
                "points or more, and a start below the stop."
            )
        even = np.linspace(self.start, self.stop, self.points).round(6).tolist()
        return sorted({*even, 0.0, 1.0})


def main(command: Sequence[str]) -> None:
    """The subcommand."""
    flags, words = read_command("connectivity", ConnectivityFlags, command, __doc__)
    grid = flags.grid()
    runs = obtain(words, ["finetune", "mask"], flags.runs, flags.output_dir)
    rows = []
    for task, seed, path in product(runs.tasks, runs.seeds, PATHS):
        training = Training(flags.bend_steps, flags.bend_learning_rate, flags.bend_batch_size, seed)
        identity = {
            "runs": [runs.identity(task, method, seed) for method in ("mask", "finetune")],
            "rows": runs.seen(task),
            "grid": grid,
            "bend": vars(training) if path == "bezier" else None,
        }
        found = once(
            flags.output_dir / "parts",
            f"connectivity-{task}-seed-{seed}-{path}",
            identity,
            partial(_walk, runs, task, seed, path, grid, training),
        )
        metric = runs.rows(task).data.task.metrics[0]
        for g, value, nats in found:
            row = {"task": task, "metric": metric, "seed": seed, "path": path}
            rows.append({**row, "g": g, "score": value, "loss": nats})
    publish(flags.output_dir, conclude(rows, runs.setting), rows, draw(rows))


def _walk(
    runs: Runs, task: str, seed: int, path: str, grid: Sequence[float], training: Training
) -> list[tuple[float, float, float]]:
    """(g, score, loss) along one path."""
    encoded = runs.rows(task)
    masked, model = (runs.model(task, method, seed) for method in ("mask", "finetune"))
    line = Segment(point(masked), point(model))
    folders = [str(runs.jobs[task, method, seed].folder) for method in ("mask", "finetune")]
    require_same_shape(line.first, line.last, (folders[0], folders[1]))
    backbone = runs.inputs.backbone
    walked: Segment | Bezier = line
    if path == "bezier":
        walked = train_bend(model, line, encoded.train, backbone, training)
    found = []
    for g in grid:
        move(model, walked(g))
        answers = logits(model, encoded.dev[""], backbone)
        value = score(encoded.data, encoded.dev[""], answers)
        found.append((g, value, loss(encoded.dev[""], answers)))
    return found


def barrier(rows: Sequence[dict[str, Any]]) -> float:
    """The lower end's score less the lowest between the ends, over the rows of one path."""
    between = {row["g"]: row["score"] for row in rows if 0 <= row["g"] <= 1}
    return min(between[0.0], between[1.0]) - min(between.values())


def barriers(rows: Sequence[dict[str, Any]], task: str, path: str) -> list[float]:
    """Of every seed."""
    found = [row for row in rows if (row["task"], row["path"]) == (task, path)]
    seeds = dict.fromkeys(row["seed"] for row in found)
    return [barrier([row for row in found if row["seed"] == seed]) for seed in seeds]


def conclude(rows: Sequence[dict[str, Any]], setting: str) -> Finding:
    """The finding from the rows of the CSV."""
    holds, seen = [], []
    for task in dict.fromkeys(row["task"] for row in rows):
        found = {path: statistics.median(barriers(rows, task, path)) for path in PATHS}
        ends = [
            statistics.median(r["score"] for r in rows if (r["task"], r["g"]) == (task, g))
            for g in (0.0, 1.0)
        ]
        holds.append(found["line"] <= FLAT)
        seen.append(
            f"{task}: masked {100 * ends[0]:.1f}, finetuned {100 * ends[1]:.1f}; barrier of "
            f"the line {100 * found['line']:.1f} points, of the curve {100 * found['bezier']:.1f}"
        )
    return Finding(
        "connectivity",
        "A line segment of nearly constant test accuracy connects masked and finetuned minima.",
        "Abstract; figures 6 and 7, straight and Bézier paths, BERT.",
        "; ".join(seen),
        setting,
        f"Median barrier of the straight path at most {100 * FLAT:g} points.",
        verdict(holds),
    )


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Per task the score above and the loss below, a colour per path."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, axes = panels(tasks, rows=2)
    for column, task in enumerate(tasks):
        for axis, quantity in zip(axes[:, column], ("score", "loss"), strict=True):
            for path, colour in PATHS.items():
                found = [row for row in rows if (row["task"], row["path"]) == (task, path)]
                values: dict[float, list[float]] = {}
                for row in found:
                    values.setdefault(row["g"], []).append(row[quantity])
                curve(axis, values, path, colour)
            for g in (0, 1):
                axis.axvline(g, color="0.6", lw=0.8, ls=":")
        axes[0, column].set_ylabel(metric_of(rows, task))
        axes[1, column].set(ylabel="loss, nats", xlabel="g: 0 masked, 1 finetuned")
    legend_below(figure, axes[0, 0])
    return figure
