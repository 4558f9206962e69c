"""Ensembles of masked, of finetuned and of both kinds of models (paper, its ensembles).

Every ensemble has the same number of members, runs of one task with different seeds; a mixed one
has half of each kind. All that the seeds allow are scored, by three votes
(finetune.serving.ensemble).
By summed probabilities, the claim holds for a task if the median masked ensemble scores no less
than the median single mask, and the median mixed one no less than the lower of the pure ones.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from finetune.choices import VOTES
from finetune.errors import FinetuneError
from finetune.serving.ensemble import vote
from reproduce.weight_masks.finding import Finding, publish, verdict
from reproduce.weight_masks.flags import RunFlags, read_command
from reproduce.weight_masks.forward import logits, score
from reproduce.weight_masks.parts import once
from reproduce.weight_masks.picture import legend_below, metric_of, panels
from reproduce.weight_masks.runs import Runs, obtain

METHODS = ("mask", "finetune")
COLOURS = {"masked": "C0", "finetuned": "C1", "mixed": "C2"}
DECIDES = "probability"


@dataclass
class EnsembleFlags(RunFlags):
    """What votes."""

    size: int = field(default=4, metadata={"help": "members of an ensemble, an even number"})


def main(command: Sequence[str]) -> None:
    """The subcommand."""
    flags, words = read_command("ensemble", EnsembleFlags, command, __doc__)
    if flags.size < 2 or flags.size % 2:
        raise FinetuneError(f"--size: found {flags.size}, expected 2, 4, 6, ...")
    runs = obtain(words, METHODS, flags.runs, flags.output_dir)
    if len(runs.seeds) < flags.size:
        raise FinetuneError(
            f"--size {flags.size}: {len(runs.seeds)} seeds make no ensemble of one kind of this "
            "size; give more with --seed, or a smaller --size."
        )
    rows = []
    for task in runs.tasks:
        encoded = runs.rows(task)
        dev = encoded.dev[""]
        found = {
            key: np.array(
                once(
                    flags.output_dir / "parts",
                    f"ensemble-{task}-{key[0]}-seed-{key[1]}",
                    {"run": runs.identity(task, *key), "rows": runs.seen(task)},
                    partial(_logits, runs, task, *key),
                )
            )
            for key in product(METHODS, runs.seeds)
        }
        for kind, members, how, decided in ensembles(found, flags.size):
            rows.append(
                {
                    "task": task,
                    "metric": encoded.data.task.metrics[0],
                    "kind": kind,
                    "size": len(members),
                    "vote": how,
                    "members": " ".join(f"{method}-{seed}" for method, seed in members),
                    "score": score(encoded.data, dev, decided),
                }
            )
    publish(flags.output_dir, conclude(rows, runs.setting), rows, draw(rows))


def _logits(runs: Runs, task: str, method: str, seed: int) -> list[list[float]]:
    rows = runs.rows(task).dev[""]
    return logits(runs.model(task, method, seed), rows, runs.inputs.backbone).tolist()


Member = tuple[str, int]


def ensembles(
    found: dict[Member, np.ndarray], size: int
) -> Iterator[tuple[str, tuple[Member, ...], str, np.ndarray]]:
    """(kind, members, vote, scores [N, C]) of every single model and every ensemble of `size`.

    `found` has each member's logits [N, C].
    """
    masks, finetuned = ([m for m in found if m[0] == method] for method in METHODS)
    half = size // 2
    groups = {
        "masked": list(combinations(masks, size)),
        "finetuned": list(combinations(finetuned, size)),
        "mixed": [
            (*some, *others)
            for some in combinations(masks, half)
            for others in combinations(finetuned, half)
        ],
    }
    for kind, alone in (("masked", masks), ("finetuned", finetuned)):
        for member in alone:
            yield kind, (member,), "single", found[member]
    for kind, members in groups.items():
        for some in members:
            for how in VOTES:
                yield kind, some, how, vote(np.stack([found[member] for member in some]), how)


def median(rows: Sequence[dict[str, Any]], task: str, kind: str, how: str) -> float:
    """Of the scores of one kind of ensemble."""
    wanted = (task, kind, how)
    return statistics.median(
        row["score"] for row in rows if (row["task"], row["kind"], row["vote"]) == wanted
    )


def conclude(rows: Sequence[dict[str, Any]], setting: str) -> Finding:
    """The finding from the rows of the CSV."""
    holds, seen = [], []
    for task in dict.fromkeys(row["task"] for row in rows):
        single = {kind: median(rows, task, kind, "single") for kind in ("masked", "finetuned")}
        together = {kind: median(rows, task, kind, DECIDES) for kind in COLOURS}
        holds.append(
            together["masked"] >= single["masked"]
            and together["mixed"] >= min(together["masked"], together["finetuned"])
        )
        seen.append(
            f"{task}: single masked {100 * single['masked']:.1f}, finetuned "
            f"{100 * single['finetuned']:.1f}; together masked {100 * together['masked']:.1f}, "
            f"finetuned {100 * together['finetuned']:.1f}, mixed {100 * together['mixed']:.1f}"
        )
    return Finding(
        "ensemble",
        "Ensembles of masked models gain over single ones, and mixed ones are as good as pure.",
        "Its comparison of single models and ensembles of equal size.",
        "; ".join(seen),
        setting,
        "By summed probabilities, medians: masked ensembles no less than single masks, mixed ones "
        "no less than the lower of the pure ones.",
        verdict(holds),
    )


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """A panel per task: single models and the three votes, a colour per kind."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, axes = panels(tasks)
    votes = ("single", *VOTES)
    for axis, task in zip(axes[0], tasks, strict=True):
        for number, (kind, colour) in enumerate(COLOURS.items()):
            axis.plot([], [], "o", color=colour, label=kind)
            for place, how in enumerate(votes):
                x = place + 0.24 * (number - 1)
                found = [
                    row["score"]
                    for row in rows
                    if (row["task"], row["kind"], row["vote"]) == (task, kind, how)
                ]
                if found:
                    axis.plot([x] * len(found), found, "o", color=colour, ms=4, alpha=0.5)
                    axis.hlines(statistics.median(found), x - 0.1, x + 0.1, color=colour, lw=2.5)
        axis.set_xticks(range(len(votes)), votes)
        axis.set_ylabel(metric_of(rows, task))
    legend_below(figure, axes[0, 0])
    return figure
