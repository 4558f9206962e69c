"""A record's page from the CSV files, findings and notes in its folder; no measuring here.

A finding is NAME.json of `python -m reproduce weight_masks` with its NAME.png, in any folder under
docs/reproduction: figure, claim, paper, ours, setting, rule, verdict. notes.txt is Markdown: what
small runs found that are no part of the experiment.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scipy.stats import spearmanr

from finetune.files import write_figure, write_text
from finetune.results.comparison import Pairs, overall
from reproduce.late_masking import figures
from reproduce.late_masking.experiment import Claim, Experiment
from reproduce.late_masking.record import PEER_TITLES, Record
from reproduce.late_masking.verdicts import Interval, at_most, paired
from reproduce.weight_masks import FIGURES

FINDING_KEYS = {"figure", "claim", "paper", "ours", "setting", "rule", "verdict"}
DPI = 130
MIN_POINTS = 5  # fewer runs say nothing of how loss and score go together


def write_report(
    experiment: Experiment, others: Sequence[Experiment], results: Path, page: Path
) -> None:
    """Draw the pictures into `results`, and write `page` beside it.

    Args:
        experiment: whose CSV files lie in `results`.
        others: further ones, to be named with the reason why they were not run.
        results: folder of CSV files and notes.txt, and of findings in folders of their own.
        page: the Markdown.
    """
    record = Record(experiment, results)
    found = findings(results)
    notes = results / "notes.txt"
    draw(record, results)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    text = environment.get_template("reproduction.md.jinja").render(
        experiment=experiment,
        about=record.about,
        machines=record.runs_by_machine(),
        hours=record.hours_of_all,
        lines=record.lines,
        claims=[claim_row(record, claim) for claim in experiment.claims],
        variants=[
            variant_row(record, variant)
            for variant in experiment.variants
            if variant in record.curves
        ],
        missing=[
            experiment.variants[variant].title
            for variant in experiment.variants
            if variant not in record.curves
        ],
        to_reference=to_reference(record),
        tasks=record.metrics,
        downstream=downstream_rows(record),
        predicts=correlation(record),
        diagnosed=bool(record.diagnostics),
        peers=peers_of(record),
        drawn=any(variant in record.curves for variant in experiment.curves),
        trials=record.trials,
        notes=notes.read_text(encoding="utf-8") if notes.is_file() else "",
        findings=found,
        undrawn=[name for name in FIGURES if name not in {row["figure"] for row in found}],
        others=others,
        folder=results.name,
    )
    write_text(page, text)


def draw(record: Record, results: Path) -> None:
    """The pictures for which there are results."""
    if record.curves:
        reference = record.experiment.reference
        if shown := {a: record.curves[a] for a in record.experiment.curves if a in record.curves}:
            axes = ("tokens", "flops", "hours")
            figure = figures.loss_curves(shown, axes, record.titles, record.lines)
            write_figure(results / "curves.png", figure, DPI)
        finals = {variant: record.last(variant, "loss") for variant in record.curves}
        figure = figures.final_losses(finals, record.titles, reference)
        write_figure(results / "variants.png", figure, DPI)
    if peers := peers_of(record):
        shown = {
            variant: record.curves[variant]
            for variant in (reference, *peers)
            if variant in record.curves
        }
        figure = figures.loss_curves(shown, ("hours",), record.titles, record.lines)
        write_figure(results / "peer.png", figure, DPI)
    if points := compared_runs(record):
        write_figure(results / "scores.png", figures.score_by_loss(points, record.titles), DPI)
    if record.diagnostics:
        figure = figures.by_layer(record.diagnostics, record.titles)
        write_figure(results / "layers.png", figure, DPI)


def peers_of(record: Record) -> list[str]:
    """Hugging Face's runs that have results."""
    return [variant for variant in record.curves if variant in PEER_TITLES]


def claim_row(record: Record, claim: Claim) -> dict[str, Any]:
    """What was found for a claim, with its spread, and the verdict."""
    found = record.worsening(claim)
    unit = {"loss": "nats higher", "score": "points lower", "hours": "of the time"}[claim.measure]
    row = {"text": claim.text, "paper": claim.paper, "rule": f"at most {claim.limit:g} {unit}"}
    if found is None:
        run = {claim.variant, claim.baseline} <= record.curves.keys()
        why = "no times on one machine" if run and claim.measure == "hours" else "not run yet"
        return row | {"ours": why, "verdict": ""}
    sides = " against ".join(
        _side(record, claim, variant) for variant in (claim.variant, claim.baseline)
    )
    change = {
        "loss": f"{interval(found)} nats",
        "score": f"{interval(found.negated())} points",
        "hours": f"{interval(found, '')} of the time" if math.isfinite(found.mean) else "no end",
    }[claim.measure]
    return row | {"ours": f"{sides}: {change}", "verdict": at_most(found, claim.limit)}


def _side(record: Record, claim: Claim, variant: str) -> str:
    """One variant's mean ± deviation in the claim's measure."""
    if claim.measure == "loss":
        return spread(list(record.last(variant, "loss").values()), 3)
    if claim.measure == "score":
        tasks = record.tasks_of(claim)
        return spread(list(record.mean_scores(variant, tasks).values()), 1)
    minutes = minutes_to_target(record, variant)
    reached = [value for value in minutes if math.isfinite(value)]
    text = f"{spread(reached, 1)} min" if reached else "never"
    some = f" ({len(reached)} of {len(minutes)} seeds get there)"
    return text if reached == minutes else text + some


def minutes_to_target(record: Record, variant: str) -> list[float]:
    """Of each seed that has a time to compare, or never gets there."""
    minutes = [60 * record.reached(variant, seed) for seed in record.curves[variant]]
    return [value for value in minutes if not math.isnan(value)]


def variant_row(record: Record, variant: str) -> dict[str, Any]:
    """A variant in the table of all variants."""
    reference = record.experiment.reference
    losses = record.last(variant, "loss")
    difference = paired(losses, record.last(reference, "loss"))

    def mean(name: str, key: str) -> float:
        return statistics.mean(record.last(name, key).values())

    def per_token(name: str) -> float:
        return mean(name, "flops") / mean(name, "tokens")

    has_reference = reference in record.curves
    timed = [points[-1] for s, points in record.curves[variant].items() if record.timed(variant, s)]
    minutes = [60 * last["hours"] for last in timed]
    speeds = [last["tokens"] / (3600 * last["hours"]) for last in timed]
    to_bigram = record.tokens_to_bigram(variant) / 1e6
    return {
        "title": record.titles[variant],
        "compute": record.experiment.variants[variant].compute,
        "n": len(losses),
        "loss": spread(list(losses.values()), 3),
        "accuracy": 100 * mean(variant, "accuracy"),
        "difference": interval(difference) if difference and variant != reference else "",
        "tokens": mean(variant, "tokens") / 1e6,
        "to_bigram": f"{to_bigram:.2f}" if math.isfinite(to_bigram) else "not all seeds",
        "flops": per_token(variant) / per_token(reference) if has_reference else math.nan,
        "minutes": number(statistics.mean(minutes), 1) if timed else "",
        "speed": number(statistics.mean(speeds)) if timed else "",
    }


def to_reference(record: Record) -> list[dict[str, Any]]:
    """Variants that get to the reference's final loss with every seed, by the time that they take;
    those without a time to compare follow, by their FLOPs."""
    rows = []
    for variant, seeds in record.curves.items():
        minutes = minutes_to_target(record, variant)
        time = record.time_ratio(variant, record.experiment.reference)
        flops = record.share_of_flops(variant)
        if not all(math.isfinite(found.mean) for found in (time, flops) if found):
            continue
        rows.append(
            {"title": record.titles[variant], "n": len(seeds),
             "minutes": spread(minutes, 1) if minutes else "",
             "time": interval(time, "") if time else "",
             "flops": interval(flops, "") if flops else "",
             "order": [found.mean if found else math.inf for found in (time, flops)]}
        )  # fmt: skip
    return sorted(rows, key=lambda row: row["order"])


def downstream_rows(record: Record) -> list[dict[str, Any]]:
    """Finetuned variants: mean ± deviation by task, their mean, the difference to reference."""
    reference, rows = record.experiment.reference, []
    for variant, seeds in record.scores.items():
        by_task = {
            task: [found[task] for found in seeds.values() if task in found]
            for task in record.metrics
        }
        tasks = record.shared_tasks(variant, reference)
        mine, theirs = record.mean_scores(variant, tasks), record.mean_scores(reference, tasks)
        difference = paired(mine, theirs) if variant != reference else None
        rows.append(
            {
                "title": record.titles[variant],
                "compute": record.experiment.variants[variant].compute,
                "n": len(seeds),
                "finetunings": record.finetunings(variant),
                "tasks": {t: spread(values, 1) if values else "" for t, values in by_task.items()},
                "mean": spread(list(mine.values()), 1) if mine else "",
                "difference": interval(difference) if difference else "",
                "p": _sign_flips(record, variant, reference) if difference else "",
            }
        )
    return rows


def _sign_flips(record: Record, variant: str, reference: str) -> str:
    """p of the permutation test over all pairs of equal task and seed."""
    first, second = record.scores[reference], record.scores[variant]
    seeds = sorted(first.keys() & second.keys())
    pairs = [
        Pairs(task, "finetune", record.metrics[task],
              *(_array(side, seeds, task) for side in (first, second)))
        for task in sorted(record.shared_tasks(variant, reference))
    ]  # fmt: skip
    return f"{overall(pairs)[1]:.3f}" if pairs and seeds else ""


def _array(side: dict[int, dict[str, float]], seeds: list[int], task: str) -> np.ndarray:
    return np.array([side[seed][task] for seed in seeds])


def compared_runs(record: Record) -> list[dict[str, Any]]:
    """Losses and scores of the finetuned runs, or nothing of a few runs."""
    points = record.losses_and_scores()
    return points if len(points) > MIN_POINTS else []


def correlation(record: Record) -> str:
    """Rank correlation of loss and score over the finetuned runs; empty if there are too few."""
    points = compared_runs(record)
    if not points:
        return ""
    found = spearmanr([p["loss"] for p in points], [p["score"] for p in points])
    return f"{found.statistic:+.2f} over {len(points)} runs"


def findings(results: Path) -> list[dict[str, Any]]:
    """Of the weight-mask analyses, by figure: their JSON, and the picture's path for the page."""
    found = []
    for file in sorted(results.rglob("*.json"), key=lambda file: (file.stem, file)):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.keys() >= FINDING_KEYS:
            picture = file.with_suffix(".png")
            path = picture.relative_to(results.parent).as_posix() if picture.is_file() else ""
            found.append(content | {"picture": path})
    return found


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± sample deviation."""
    text = f"{statistics.mean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def interval(found: Interval, sign: str = "+") -> str:
    """Mean and 95 % interval, with their signs unless `sign` is empty."""
    text = f"{found.mean:{sign}.3f}"
    limits = f" [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
    return text + limits if math.isfinite(found.low) else text


def number(value: float, digits: int = 0) -> str:
    """With separators of thousands."""
    return f"{value:,.{digits}f}"
