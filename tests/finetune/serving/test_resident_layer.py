"""What a mask drops, however few or many, against plain indexing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.serving.resident_layer import Dropped


@given(
    st.integers(1, 3000),
    st.floats(0, 1),
    st.lists(st.integers(0, 2999), max_size=5),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.sampled_from([(), (3,)]),
)
def test_dropped_elements_are_cleared_and_no_others(
    count: int, share: float, more: list[int], dtype: torch.dtype, rest: tuple[int, ...]
) -> None:
    drops = np.random.default_rng(count).random(count) < share**6
    drops[[position for position in more if position < count]] = True
    elements = torch.full((count, *rest), float("nan"), dtype=dtype)
    Dropped(np.flatnonzero(drops), count, torch.device("cpu")).clear(elements)
    zeros = (elements == 0).reshape(count, -1)
    assert (zeros.all(dim=1).numpy() == drops).all()
    assert (zeros.any(dim=1).numpy() == drops).all()


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 509, 510, 511, 5100])
def test_any_gap(gap: int) -> None:
    elements = torch.ones(8 * 5200)
    Dropped(np.array([gap, gap + 1, 2 * gap + 2]), len(elements), torch.device("cpu")).clear(
        elements
    )
    assert elements.eq(0).nonzero().flatten().tolist() == [gap, gap + 1, 2 * gap + 2]


def test_memory_per_weight() -> None:
    """A byte a zero where there are few of them, else a bit a weight."""
    for share, limit in ((0.05, 0.051), (0.5, 0.126), (0.99, 0.126)):
        positions = np.flatnonzero(np.random.default_rng(0).random(1_000_000) < share)
        dropped = Dropped(positions, 1_000_000, torch.device("cpu"))
        held = sum(value.nbytes for value in vars(dropped).values() if hasattr(value, "nbytes"))
        assert held < limit * 1_000_000
