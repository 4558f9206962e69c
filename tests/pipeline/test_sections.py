"""Numbers that can't work are told by key, before anything is read."""

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rensa import RMinHash

from pipeline.config import Config
from pipeline.ranges import LARGEST_SEED
from pipeline.sections import (
    Cleaning,
    Decontamination,
    NearDuplicates,
    Packing,
    Repetition,
    Shards,
    Source,
    Split,
    Tasks,
    Tokenizer,
)

SECTIONS: list[Any] = [
    *(Source(kind="python-docs"), Cleaning(), Repetition(), NearDuplicates(), Split(valid=0.1)),
    *(Decontamination(paths=["a"]), Tokenizer(), Packing(), Shards(), Tasks()),
]


def _numbers(kind: type) -> Iterator[tuple[Any, str]]:
    """(section, field) for each field of this type in every section."""
    for section in SECTIONS:
        for name, hint in get_type_hints(type(section)).items():
            if hint is kind:
                yield section, name


def _with(section: Any, **changes: Any) -> Any:
    return type(section)(**{f.name: getattr(section, f.name) for f in fields(section)} | changes)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: type(section).__name__)
def test_the_defaults_have_no_problem(section: Any) -> None:
    assert list(section.problems("a.")) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, -1e-9])
@pytest.mark.parametrize(("section", "name"), [*_numbers(float)])
def test_a_share_or_weight_that_is_none_is_told(section: Any, name: str, value: float) -> None:
    (problem,) = [
        line for line in _with(section, **{name: value}).problems("a.") if f"a.{name}: " in line
    ][:1]
    assert problem.startswith(f"a.{name}: {value}, must be")


@pytest.mark.parametrize("value", [-1, 2**70, -(2**70)])
@pytest.mark.parametrize(("section", "name"), [*_numbers(int)])
def test_an_impossible_count_is_told(section: Any, name: str, value: int) -> None:
    found = list(_with(section, **{name: value}).problems("a."))
    assert any(line.startswith(f"a.{name}: {value}, must be at ") for line in found)


@pytest.mark.parametrize("key", ["seq_len", "chunk_bytes"])
@pytest.mark.parametrize("value", [-1, 2**70])
def test_an_impossible_count_at_the_top_is_told(key: str, value: int) -> None:
    values: dict[str, Any] = {key: value}
    with pytest.raises(Exception, match=rf"  {key}: {value}, must be at "):
        Config(output="a", sources=[Source(kind="python-docs")], **values)


@given(st.integers(-(2**66), 2**66))
def test_every_seed_that_passes_is_one_that_rensa_takes(seed: int) -> None:
    one = np.array([0, 1], np.uint64)
    try:
        RMinHash.digest_matrix_from_flat_token_hashes(one[:1], one, 4, seed)
        taken = True
    except OverflowError:
        taken = False
    assert (not list(NearDuplicates(seed=seed).problems(""))) == taken
    assert taken == (0 <= seed <= LARGEST_SEED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_top_ngram": {0: 0.1}}, "a.max_top_ngram.0: an n-gram of 0 words"),
        ({"max_duplicate_ngrams": {-1: 0.1}}, "a.max_duplicate_ngrams.-1: an n-gram of -1 words"),
        ({"max_top_ngram": {2: 1.5}}, "a.max_top_ngram.2: 1.5, must be a share in [0, 1]"),
        ({"max_duplicate_ngrams": {2: math.nan}}, "a.max_duplicate_ngrams.2: nan, must be a share"),
        ({"max_duplicate_lines": 1.1}, "a.max_duplicate_lines: 1.1, must be a share in [0, 1]"),
    ],
)
def test_limits_of_repetition_are_shares_of_n_grams(changes: Any, message: str) -> None:
    (problem,) = Repetition(**changes).problems("a.")
    assert problem.startswith(message)
    (nested,) = Cleaning(repetition=Repetition(**changes)).problems("a.")
    assert nested.startswith(message.replace("a.", "a.repetition."))
    assert not list(Repetition(max_duplicate_lines=1, max_top_ngram={1: 0, 9: 1}).problems(""))


def test_settings_of_filters_are_finite() -> None:
    filters = {"shouting": {"most": math.nan, "of": [1.0, math.inf]}}
    found = list(Cleaning(filters=filters).problems("a."))
    assert found[:2] == [
        "a.filters.shouting.most: nan, must be a finite number",
        "a.filters.shouting.of[1]: inf, must be a finite number",
    ]
