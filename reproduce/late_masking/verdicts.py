"""When a claim holds: confidence intervals over seeds, taken pair by pair.

Variants share their seeds: a pair has the same initial weights, order of sequences and validation
targets, so differences (or ratios of times) are taken seed by seed. Each claim says that such a
difference is at most some limit. With the 95 % interval of the mean difference (Student's t over
the seeds) it agrees if the whole interval is, disagrees if no part of it is, and is undecided
otherwise: more seeds would be needed. A limit of 0 is the claim to be better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_1samp

AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds, its 95 % confidence interval (Student's t), and the spread."""

    mean: float
    low: float
    high: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Of one value a seed. A single one has no limits; infinite ones have no mean."""
        array = np.asarray(values, dtype=float)
        n = len(array)
        if not np.isfinite(array).all():
            low = math.inf if np.isinf(array).all() else -math.inf
            return cls(math.inf, low, math.inf, math.nan, n)
        mean = float(array.mean())
        if n < 2:
            return cls(mean, -math.inf, math.inf, math.nan, n)
        if np.ptp(array) == 0:
            return cls(mean, mean, mean, 0.0, n)
        limits = ttest_1samp(array, 0.0).confidence_interval(0.95)
        return cls(mean, float(limits.low), float(limits.high), float(array.std(ddof=1)), n)

    def negated(self) -> Interval:
        """Of the values with the other sign."""
        return Interval(-self.mean, -self.high, -self.low, self.std, self.n)


def paired(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Interval | None:
    """Variant less baseline over the seeds that both have; None without any."""
    seeds = sorted(variant.keys() & baseline.keys())
    return Interval.of([variant[s] - baseline[s] for s in seeds]) if seeds else None


def at_most(found: Interval, limit: float) -> str:
    """What the interval says of the claim that the mean is at most `limit`."""
    return AGREES if found.high <= limit else DISAGREES if found.low > limit else UNDECIDED


def reached_at(curve: Sequence[tuple[float, float]], target: float) -> float:
    """Where a curve of (hours or tokens, loss) first falls to `target`; infinity if never.

    Between two evaluations the loss is taken to fall evenly.
    """
    before: tuple[float, float] | None = None
    for place, loss in curve:
        if loss <= target:
            if before is None or before[1] == loss:
                return place
            share = (before[1] - target) / (before[1] - loss)
            return before[0] + share * (place - before[0])
        before = (place, loss)
    return math.inf
