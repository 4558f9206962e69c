"""Planted differences: the intervals are scipy's, the verdicts what they must be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from reproduce.late_masking.verdicts import (
    AGREES,
    DISAGREES,
    UNDECIDED,
    Interval,
    at_most,
    paired,
    reached_at,
)


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    variant, baseline = rng.normal(4.1, 0.1, 5), rng.normal(4.0, 0.1, 5)
    # A seed that only one of them has is no pair.
    found = paired(dict(enumerate(variant)) | {9: 0.0}, dict(enumerate(baseline)) | {7: 0.0})
    wanted = ttest_rel(variant, baseline).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.n == 5


@pytest.mark.parametrize(
    ("shift", "limit", "verdict"),
    [
        (-0.1, 0.0, AGREES),  # better, and that was the claim
        (0.1, 0.0, DISAGREES),
        (0.01, 0.05, AGREES),  # worse, but by less than the limit
        (0.1, 0.05, DISAGREES),
        (0.0, 0.0, UNDECIDED),
    ],
)
def test_planted_differences(shift: float, limit: float, verdict: str) -> None:
    noise = [-0.01, 0.0, 0.01]  # 95 %: ± 0.025
    baseline = {seed: 4.0 + seed for seed in range(3)}
    variant = {seed: baseline[seed] + shift + noise[seed] for seed in range(3)}
    found = paired(variant, baseline)
    assert found is not None
    assert at_most(found, limit) == verdict


def test_too_few_seeds_decide_nothing() -> None:
    assert paired({1: 1.0}, {2: 1.0}) is None
    assert at_most(Interval.of([-5.0]), 0.0) == UNDECIDED


def test_what_never_arrives_is_no_mean() -> None:
    assert at_most(Interval.of([math.inf, math.inf]), 0.5) == DISAGREES
    assert at_most(Interval.of([0.1, math.inf]), 0.5) == UNDECIDED


def test_hours_between_two_evaluations() -> None:
    curve = [(1.0, 6.0), (2.0, 5.0), (3.0, 5.5), (4.0, 4.0)]
    assert reached_at(curve, 5.25) == pytest.approx(1.75)
    assert reached_at(curve, 5.0) == 2.0
    assert reached_at(curve, 4.75) == pytest.approx(3.5)
    assert reached_at(curve, 7.0) == 1.0
    assert reached_at(curve, 3.0) == math.inf
