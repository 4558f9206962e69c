"""The order of an epoch against brute force."""

from __future__ import annotations

from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pretrain.order import Order

SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(sum)
WINDOW = st.none() | st.integers(1, 5)


def stream(order: Order, count: int) -> list[tuple[int, int]]:
    """(epoch, sequence) at each of the first `count` positions."""
    return [(epoch, int(i)) for epoch, part in order.parts(0, count) for i in part]


@given(SIZES, WINDOW, st.integers(0, 100), st.integers(0, 80), st.integers(0, 5))
def test_an_epoch_reads_every_sequence_once_from_any_position(
    sizes: list[int], window: int | None, position: int, count: int, seed: int
) -> None:
    order = Order(sizes, seed, window)
    whole = stream(order, position + count)
    resumed = Order(sizes, seed, window).parts(position, count)
    assert [(epoch, int(i)) for epoch, part in resumed for i in part] == whole[position:]
    for epoch in range(len(whole) // sum(sizes)):
        assert sorted(i for e, i in whole if e == epoch) == list(range(sum(sizes)))


@given(SIZES, st.integers(0, 5))
def test_all_at_once_is_the_permutation_that_runs_have_always_had(
    sizes: list[int], seed: int
) -> None:
    order = Order(sizes, seed)
    for epoch in range(3):
        expected = np.random.default_rng([seed, epoch]).permutation(sum(sizes))
        np.testing.assert_array_equal(order.epoch(epoch).sequences, expected)


@given(SIZES, WINDOW, st.integers(0, 60), st.integers(1, 40), st.integers(0, 5))
def test_shards_are_named_when_their_sequences_are_next(
    sizes: list[int], window: int | None, position: int, count: int, seed: int
) -> None:
    order = Order(sizes, seed, window)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    found = list(order.shards_from(position, count))
    needed = [shard_of[i] for _, i in stream(order, position + count)[position:]]
    assert {shard for shard, is_needed in found if is_needed} >= set(needed)
    assert sorted(shard for shard, _ in found) == list(np.flatnonzero(sizes))
    if window is not None:
        assert {shard for shard, is_needed in found if is_needed} == _live(
            order, shard_of, position, count
        )
        later = [
            shard_of[i] for _, i in stream(order, position + 3 * sum(sizes))[position + count :]
        ]
        ahead = [shard for shard, is_needed in found if not is_needed]
        assert ahead == sorted(ahead, key=later.index)


def _live(order: Order, shard_of: np.ndarray, position: int, count: int) -> set[int]:
    """Shards whose span from first to last use in an epoch touches the next sequences."""
    live = set()
    size = order.num_sequences
    for epoch in range((position + count) // size + 1):
        shards = shard_of[order.epoch(epoch).sequences]
        for shard in np.unique(shards):
            (uses,) = np.nonzero(shards == shard)
            first, last = epoch * size + uses.min(), epoch * size + uses.max()
            if first < position + count and last >= position:
                live.add(int(shard))
    return live


@given(st.integers(2, 40), st.integers(1, 30), st.integers(1, 6), st.integers(0, 9))
def test_a_window_needs_few_shards_at_once(
    num_shards: int, size: int, window: int, seed: int
) -> None:
    order = Order([size] * num_shards, seed, window)
    for position in range(0, num_shards * size, max(1, size // 2)):
        needed = [shard for shard, is_needed in order.shards_from(position, 1) if is_needed]
        assert len(needed) <= window + 2


def test_a_window_mixes_its_shards_and_epochs_differ() -> None:
    order = Order([1000] * 20, seed=0, shuffle_shards=5)
    middle = order.epoch(0).sequences[8000:8256] // 1000  # a batch
    assert len(np.unique(middle)) >= 5
    shares = np.bincount(middle, minlength=20) / 256
    assert shares.max() < 0.35
    assert order.epoch(0).shards.tolist() != order.epoch(1).shards.tolist()
    first = list(islice(order.shards_from(0, 256), 20))
    assert sum(is_needed for _, is_needed in first) <= 2  # one shard is enough to begin
