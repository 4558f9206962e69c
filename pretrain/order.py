"""The order in which the sequences of a data set are read: a function of the seed.

So the whole state of a loader is the number of sequences read: resuming costs nothing, and the
ranks may change, since a global batch is the same set of sequences whoever reads it. Where the
shards lie has no part in it.

An epoch is one permutation of all sequences, which needs all shards at once, or a window moves over
the shards. Then the shards stand one after the other in a shuffled order, each sequence of this
stream gets the key `its index + a random number below the window`, and an epoch goes by rising key.
A sequence so moves by less than the window; a shard is needed from about when the window reaches it
until the window has passed it, and the first shard alone is enough to begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Epoch:
    """One pass over the data: N sequences in S shards."""

    sequences: NDArray[np.int64]
    """[N] indices, as they are read."""
    shards: NDArray[np.int64]
    """[S] indices, by the position at which each is needed first."""
    first: NDArray[np.int64]
    """[S] the first position that needs each of `shards`."""
    last: NDArray[np.int64]
    """[S] the last one."""


class Order:
    """Which sequences stand at which positions, counted over all epochs."""

    def __init__(
        self, shard_sequences: Sequence[int], seed: int, shuffle_shards: int | None = None
    ) -> None:
        """Of sequences that are numbered shard by shard.

        Args:
            shard_sequences: number in each shard.
            seed: of the run.
            shuffle_shards: window, in shards of mean size; None: all at once.
        """
        self.num_sequences = sum(shard_sequences)
        self._sizes = np.array(shard_sequences, dtype=np.int64)
        self._seed = seed
        self._shuffle_shards = shuffle_shards
        self._epochs: dict[int, Epoch] = {}

    def parts(self, position: int, count: int) -> list[tuple[int, NDArray[np.int64]]]:
        """The `count` sequences from `position` on, as (epoch, [n] indices) parts.

        A batch may hold the last sequences of one epoch and the first of the next.
        """
        parts = []
        while count > 0:
            epoch, offset = divmod(position, self.num_sequences)
            taken = min(count, self.num_sequences - offset)
            parts.append((epoch, self.epoch(epoch).sequences[offset : offset + taken]))
            position, count = position + taken, count - taken
        return parts

    def shards_from(self, position: int, count: int) -> Iterator[tuple[int, bool]]:
        """The shards that are needed from `position` on, each once, in the order of first need.

        Args:
            position: sequences read before.
            count: sequences that are read next.

        Yields:
            A shard's index, and whether one of the next `count` sequences lies in it.
        """
        end = position + count
        seen: set[int] = set()
        epoch, offset = divmod(position, self.num_sequences)
        while len(seen) < np.count_nonzero(self._sizes):
            found = self.epoch(epoch)
            begin = epoch * self.num_sequences
            for index in np.flatnonzero(found.last >= offset):
                shard = int(found.shards[index])
                if shard not in seen:
                    seen.add(shard)
                    yield shard, bool(begin + found.first[index] < end)
            epoch, offset = epoch + 1, 0

    def epoch(self, number: int) -> Epoch:
        """The order of an epoch; the last two are kept."""
        if number not in self._epochs:
            self._epochs = {n: e for n, e in self._epochs.items() if n == number - 1}
            draw = np.random.default_rng([self._seed, number])
            make = self._permute if self._shuffle_shards is None else self._move_window
            self._epochs[number] = make(draw)
        return self._epochs[number]

    def _permute(self, draw: np.random.Generator) -> Epoch:
        sequences = draw.permutation(self.num_sequences)
        shards = np.flatnonzero(self._sizes)
        first = np.zeros_like(shards)
        return Epoch(sequences, shards, first, first + self.num_sequences - 1)

    def _move_window(self, draw: np.random.Generator) -> Epoch:
        assert self._shuffle_shards is not None
        shards = draw.permutation(np.flatnonzero(self._sizes))
        starts = np.cumsum(self._sizes) - self._sizes
        stream = np.concatenate(
            [np.arange(starts[s], starts[s] + self._sizes[s], dtype=np.int64) for s in shards]
        )
        window = max(1, self._shuffle_shards * self.num_sequences // len(shards))
        keys = np.arange(self.num_sequences) + draw.integers(window, size=self.num_sequences)
        by_key = np.argsort(keys, kind="stable")
        positions = np.empty_like(by_key)
        positions[by_key] = np.arange(self.num_sequences)
        begins = np.cumsum(self._sizes[shards]) - self._sizes[shards]
        first = np.minimum.reduceat(positions, begins)
        last = np.maximum.reduceat(positions, begins)
        by_need = np.argsort(first, kind="stable")
        return Epoch(stream[by_key], shards[by_need], first[by_need], last[by_need])
