"""Dev score against the number of masked blocks, bottom-up and top-down (paper, figure 2).

Pooler and classifier are masked in any case; at 0 blocks nothing else is, and with all of them the
two ways are one. The claim, that the upper blocks are the ones to mask, is tested on the pairs of
runs with equal task, number of blocks and seed: a sign-flip permutation test of their differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from finetune.errors import FinetuneError
from finetune.jobs.plan import make_plan
from finetune.results.comparison import LEVEL, Pairs, overall
from reproduce.weight_masks.finding import Finding, publish, verdict
from reproduce.weight_masks.flags import FigureFlags, read_command
from reproduce.weight_masks.picture import curve, legend_below, metric_of, panels
from reproduce.weight_masks.runs import describe, outcome, sweep

SIDES = {"bottom": "from the bottom up", "top": "from the top down"}


@dataclass
class LayersFlags(FigureFlags):
    """The numbers of blocks."""

    counts: list[int] | None = field(
        default=None, metadata={"help": "numbers of masked blocks; default 0 to all"}
    )


def main(command: Sequence[str]) -> None:
    """The subcommand."""
    flags, words = read_command("layers", LayersFlags, command, __doc__)
    where = ["--method", "mask", "--output_dir", str(flags.output_dir)]
    depth = make_plan([*words, *where]).inputs.backbone.config.num_hidden_layers
    counts = sorted(set(range(depth + 1) if flags.counts is None else flags.counts))
    if not counts or not 0 <= counts[0] <= counts[-1] <= depth:
        raise FinetuneError(f"--counts: found {counts}; this encoder has {depth} blocks.")
    names = cells(counts, depth)
    inputs, jobs = sweep(
        words,
        {name: ["--mask_blocks", f"{side}:{count}"] for name, (side, count) in names.items()},
        flags.output_dir / "runs-layers",
    )
    rows = []
    for name, found in jobs.items():
        side, count = names[name]
        for job in found:
            run = outcome(job)
            metric, score = next(iter(run.metrics.items()))
            # What is masked is the same at both ends, so one run stands for both ways.
            for way in SIDES if count in (0, depth) else (side,):
                rows.append(
                    {
                        "task": job.task,
                        "metric": metric,
                        "side": way,
                        "blocks": count,
                        "seed": job.seed,
                        "score": score,
                        "status": run.status,
                    }
                )
    every = [job for found in jobs.values() for job in found]
    publish(flags.output_dir, conclude(rows, depth, describe(inputs, every)), rows, draw(rows))


def cells(counts: Sequence[int], depth: int) -> dict[str, tuple[str, int]]:
    """(side, number) by name of what has to be trained; none and all blocks only once."""
    return {
        f"{side}-{count}": (side, count)
        for count in counts
        for side in (("top",) if count in (0, depth) else SIDES)
    }


def pairs(rows: Sequence[dict[str, Any]], task: str, depth: int) -> Pairs | None:
    """Bottom-up against top-down where they mask other blocks; None without such runs."""
    scores = {
        (row["side"], row["blocks"], row["seed"]): row["score"]
        for row in rows
        if row["task"] == task and 0 < row["blocks"] < depth
    }
    keys = sorted((count, seed) for side, count, seed in scores if side == "top")
    values = [(scores["bottom", *key], scores["top", *key]) for key in keys]
    return Pairs(task, "mask", "", *np.array(values).T) if values else None


def conclude(rows: Sequence[dict[str, Any]], depth: int, setting: str) -> Finding:
    """The finding from the rows of the CSV."""
    holds: list[bool | None] = []
    seen = []
    for task in dict.fromkeys(row["task"] for row in rows):
        found = pairs(rows, task, depth)
        if found is None:
            holds.append(None)
            seen.append(f"{task}: no pairs")
            continue
        difference, p_value = overall([found])
        seen.append(
            f"{task}: top-down {100 * difference:+.1f} points on average "
            f"(p = {p_value:.3f}, {len(found.first)} pairs)"
        )
        holds.append(None if p_value >= LEVEL else difference > 0)
    return Finding(
        "layers",
        "With equally many masked blocks, masking the upper ones scores higher.",
        "Figure 2, BERT on MRPC, CoLA, RTE; blocks 2 to 11 of 12 are what it masks elsewhere.",
        "; ".join(seen),
        setting,
        f"Sign-flip permutation test over pairs of equal number and seed, p < {LEVEL:g}.",
        verdict(holds),
    )


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """A panel per task, a curve per side."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, axes = panels(tasks)
    for axis, task in zip(axes[0], tasks, strict=True):
        for colour, (side, label) in zip(("C1", "C0"), SIDES.items(), strict=True):
            found = [row for row in rows if (row["task"], row["side"]) == (task, side)]
            scores = {
                count: [row["score"] for row in found if row["blocks"] == count]
                for count in sorted({row["blocks"] for row in found})
            }
            curve(axis, scores, label, colour)
        axis.set(xlabel="masked blocks", ylabel=metric_of(rows, task))
        axis.set_xticks(sorted({row["blocks"] for row in rows}))
    legend_below(figure, axes[0, 0])
    return figure
