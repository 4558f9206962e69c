"""Which runs a command line asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reproduce.errors import ReproduceError
from reproduce.late_masking.stages import Options


def asked(options: Options) -> list[tuple[str, int]]:
    return [(run.variant, run.seed) for run in options.runs()]


def test_all_seeds_of_a_variant_come_before_the_next_variant(options: Options) -> None:
    variants, seeds = options.experiment.variants, options.experiment.seeds
    expected = [(variant, seed) for variant in variants for seed in seeds]
    assert asked(replace(options, only=None)) == expected


def test_variants_and_seeds_asked_for_are_the_only_ones(options: Options) -> None:
    some = replace(options, only=["self_k_d2", "vanilla_15"], seeds=[2])
    assert asked(some) == [("self_k_d2", 2), ("vanilla_15", 2)]


@pytest.mark.parametrize(
    "asked_for, message",
    [
        ({"only": ["vanila_15"]}, "--only vanila_15: no such variant; variants: vanilla_15, "),
        ({"seeds": [1, 7]}, "--seeds 7: not among the experiment's, which are 1 2"),
    ],
)
def test_unknown_ones_are_named(
    options: Options, asked_for: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ReproduceError, match=message):
        replace(options, **asked_for).runs()  # type: ignore[arg-type]
