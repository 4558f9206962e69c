"""The checked-in CSV files of an experiment, as its tables and claims ask for them.

Runs whose settings are no longer those of the config are dropped. A run's times count where it was
made on the machine of the reference's run of the same seed; elsewhere they are NaN.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections import Counter, defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

from reproduce.late_masking.collect import read_csv
from reproduce.late_masking.experiment import (
    Claim,
    Experiment,
    finetuning_settings,
    settings_of,
)
from reproduce.late_masking.verdicts import Interval, paired, reached_at

logger = logging.getLogger(__name__)

PEER_TITLES = {
    "huggingface_ours": "Hugging Face's Trainer, our initial weights",
    "huggingface_stock": "Hugging Face's Trainer, its own initial weights",
}


class Record:
    """Results by variant and seed; variants without results are absent."""

    def __init__(self, experiment: Experiment, results: Path) -> None:
        self.experiment, self._results = experiment, results
        self.titles = {
            name: variant.title for name, variant in experiment.variants.items()
        } | PEER_TITLES
        self.lines = {row["name"]: row["loss"] for row in read_csv(results / "lines.csv")}
        self.about = {row["name"]: row["value"] for row in read_csv(results / "about.csv")}
        self.machines = {
            (row["variant"], row["seed"]): row["machine"]
            for row in read_csv(results / "runs.csv")
            if row["variant"] in self.titles
            and row["settings"] == settings_of(experiment, row["variant"])
        }
        self.diagnostics = self._current("diagnostics.csv")
        self.trials = read_csv(results / "trials.csv")

    @cached_property
    def curves(self) -> dict[str, dict[int, list[dict[str, Any]]]]:
        """Variant -> seed -> evaluations in order; in the order of the config, then the peers."""
        found: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for row in self._evaluations:
            variant, seed = row["variant"], row["seed"]
            hours = row["hours"] if self.timed(variant, seed) else math.nan
            found[variant][seed].append(row | {"hours": hours})
        return {variant: dict(found[variant]) for variant in self.titles if variant in found}

    @cached_property
    def hours_of_all(self) -> float:
        """Wall-clock of all runs, one after another."""
        ends = {(row["variant"], row["seed"]): row["hours"] for row in self._evaluations}
        return sum(ends.values())

    @cached_property
    def _evaluations(self) -> list[dict[str, Any]]:
        return self._current("curves.csv") + self._current("peer.csv")

    @cached_property
    def scores(self) -> dict[str, dict[int, dict[str, float]]]:
        """Variant -> seed -> task -> headline metric, times 100: mean over finetuning's seeds."""
        values: dict[tuple[str, int, str], list[float]] = defaultdict(list)
        for row in self._finetuned:
            values[row["variant"], row["seed"], row["task"]].append(100 * row["value"])
        found: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for (variant, seed, task), scores in values.items():
            found[variant][seed][task] = statistics.mean(scores)
        return {variant: dict(found[variant]) for variant in self.titles if variant in found}

    def finetunings(self, variant: str) -> int:
        """How often each pretrained model of `variant` was finetuned on a task, at least."""
        times = Counter(
            (row["seed"], row["task"]) for row in self._finetuned if row["variant"] == variant
        )
        return min(times.values(), default=0)

    @cached_property
    def metrics(self) -> dict[str, str]:
        """Task -> name of its headline metric."""
        return {row["task"]: row["metric"] for row in self._finetuned}

    @cached_property
    def _finetuned(self) -> list[dict[str, Any]]:
        now = finetuning_settings(self.experiment)
        return [row for row in self._current("downstream.csv") if row["settings"] == now]

    def _current(self, name: str) -> list[dict[str, Any]]:
        """Rows of the runs whose settings are the config's; the others are named."""
        rows = read_csv(self._results / name)
        if left_out := {(r["variant"], r["seed"]) for r in rows} - self.machines.keys():
            runs = ", ".join(f"{variant} {seed}" for variant, seed in sorted(left_out))
            logger.warning("%s: made with other settings, dropped: %s", name, runs)
        return [row for row in rows if (row["variant"], row["seed"]) in self.machines]

    def timed(self, variant: str, seed: int) -> bool:
        """Whether the run was made on the machine of the reference's."""
        machine = self.machines.get((self.experiment.reference, seed))
        return self.machines[variant, seed] == machine

    def runs_by_machine(self) -> list[tuple[str, int]]:
        """Machines and how many of the runs each made, most first."""
        return Counter(self.machines.values()).most_common()

    def last(self, variant: str, key: str) -> dict[int, float]:
        """Seed -> a column of the last evaluation."""
        return {seed: points[-1][key] for seed, points in self.curves.get(variant, {}).items()}

    def reached(self, variant: str, seed: int, key: str = "hours") -> float:
        """What one run spent until it came to the loss at which the reference ends with the seed.

        Infinity if it never gets there, or if there is no such run of the reference; NaN if it gets
        there and has no such column, or hours of another machine than the reference's.
        """
        target = self.last(self.experiment.reference, "loss").get(seed, -math.inf)
        points = [(p.get(key, math.nan), p["loss"]) for p in self.curves[variant][seed]]
        return reached_at(points, target)

    def tokens_to_bigram(self, variant: str) -> float:
        """Mean over seeds of the tokens read until the loss is that of bigram frequencies."""
        return statistics.mean(
            reached_at([(p["tokens"], p["loss"]) for p in points], self.lines["bigram"])
            for points in self.curves[variant].values()
        )

    def mean_scores(self, variant: str, tasks: set[str]) -> dict[int, float]:
        """Seed -> mean over `tasks`, of seeds that have them all."""
        return {
            seed: statistics.mean(found[task] for task in tasks)
            for seed, found in self.scores.get(variant, {}).items()
            if tasks and tasks <= found.keys()
        }

    def shared_tasks(self, *variants: str) -> set[str]:
        """Tasks that each of the variants has with every seed that it was finetuned with."""
        seeds = [found for variant in variants for found in self.scores.get(variant, {}).values()]
        complete = all(variant in self.scores for variant in variants)
        return set.intersection(*(set(found) for found in seeds)) if complete else set()

    def tasks_of(self, claim: Claim) -> set[str]:
        """The tasks that both sides of a claim have, and that it speaks of."""
        shared = self.shared_tasks(claim.variant, claim.baseline)
        return shared & set(claim.tasks) if claim.tasks else shared

    def losses_and_scores(self) -> list[dict[str, Any]]:
        """Each finetuned run's variant, final loss and mean score over the tasks of all of them."""
        tasks = self.shared_tasks(*self.scores) if self.scores else set()
        return [
            {"variant": variant, "loss": losses[seed], "score": score}
            for variant in self.scores
            for losses in [self.last(variant, "loss")]
            for seed, score in self.mean_scores(variant, tasks).items()
            if seed in losses
        ]

    def worsening(self, claim: Claim) -> Interval | None:
        """What the claim limits, over the seeds that both variants have; None without any."""
        variant, baseline = claim.variant, claim.baseline
        if claim.measure == "loss":
            return paired(self.last(variant, "loss"), self.last(baseline, "loss"))
        if claim.measure == "score":
            tasks = self.tasks_of(claim)
            return paired(self.mean_scores(baseline, tasks), self.mean_scores(variant, tasks))
        return self.time_ratio(variant, baseline)

    def time_ratio(self, variant: str, baseline: str) -> Interval | None:
        """Wall-clock to the reference's final loss over the baseline's, one value a seed.

        Over the seeds that both have on the machine of the reference, and those with which the
        variant never gets there, wherever it ran; None without any.
        """
        ends = self.last(baseline, "hours")
        # A baseline that ends above the target would have taken longer: its end is what counts.
        ratios = [
            self.reached(variant, seed) / min(self.reached(baseline, seed), ends[seed])
            for seed in sorted(self.curves.get(variant, {}).keys() & ends.keys())
            if self.timed(baseline, seed)
        ]
        ratios = [ratio for ratio in ratios if not math.isnan(ratio)]
        return Interval.of(ratios) if ratios else None

    def share_of_flops(self, variant: str) -> Interval | None:
        """FLOPs to the reference's final loss over all of the reference's, one value a seed.

        Over the seeds that both have; None without any, or if the variant's are not counted.
        """
        ends = self.last(self.experiment.reference, "flops") if self.curves else {}
        seeds = sorted(self.curves.get(variant, {}).keys() & ends.keys())
        shares = [self.reached(variant, seed, "flops") / ends[seed] for seed in seeds]
        return Interval.of(shares) if shares and not any(map(math.isnan, shares)) else None
