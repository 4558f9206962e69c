"""The micro-batches of one rank, from any position of the order on."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pretrain.data import ShardFolder, ShardHashes
from pretrain.errors import PretrainError
from pretrain.masking import MaskedBatch, mask_sequences
from pretrain.order import Order
from pretrain.recipe import MaskingConfig


class Batches:
    """Micro-batches; those of one step are made ahead in a thread."""

    def __init__(
        self,
        data: ShardFolder,
        *,
        seed: int,
        global_batch_size: int,
        micro_batch_size: int,
        initial_batch_size: int | None = None,
        shuffle_shards: int | None = None,
        rank: int = 0,
        num_ranks: int = 1,
        hashes: ShardHashes | None = None,
    ) -> None:
        """Sequences of the training split for one rank.

        Args:
            data: the shards.
            seed: of order and masks.
            global_batch_size: sequences of a step over all ranks, unless `steps` is told another.
            micro_batch_size: sequences of a forward pass.
            initial_batch_size: of the smallest step, where not all are `global_batch_size`.
            shuffle_shards: window of the order, in shards; None: all at once.
            rank: this one.
            num_ranks: all of them.
            hashes: whose finding ends the run as soon as it is there.

        Raises:
            PretrainError: a step can't be divided evenly among the ranks.
        """
        self.data = data
        self.sequences = data.sequences("train")
        self.order = Order(self.sequences.shard_sequences, seed, shuffle_shards)
        self.seed = seed
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self._hashes = hashes
        self._rank = rank
        self._num_ranks = num_ranks
        at_once = micro_batch_size * num_ranks
        sizes = {"initial_batch_size": initial_batch_size, "global_batch_size": global_batch_size}
        for key, size in sizes.items():
            if size is not None and size % at_once:
                near = at_once * max(1, size // at_once)
                raise PretrainError(
                    f"data.{key} = {size} is not a multiple of data.micro_batch_size x ranks = "
                    f"{micro_batch_size} x {num_ranks}; {near} would be"
                )

    def accumulation_steps(self, batch_size: int) -> int:
        """Micro-batches that each rank takes of a global batch."""
        return batch_size // (self.micro_batch_size * self._num_ranks)

    def micro_batch(
        self, position: int, index: int, masking: MaskingConfig, batch_size: int | None = None
    ) -> MaskedBatch:
        """The `index`-th micro-batch of this rank in the global batch that begins at `position`."""
        rank_offset = self._rank * (batch_size or self.global_batch_size) // self._num_ranks
        begin = position + rank_offset + index * self.micro_batch_size
        parts = [
            mask_sequences(
                self.sequences[sequence_ids],
                sequence_ids,
                masking=masking,
                vocabulary=self.data.vocabulary,
                seed=self.seed,
                epoch=epoch,
                word_starts=self.data.word_starts if masking.select == "whole_word" else None,
            )
            for epoch, sequence_ids in self.order.parts(begin, self.micro_batch_size)
        ]
        return MaskedBatch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def steps(
        self, position: int, masking: MaskingConfig, batch_size: int | None = None
    ) -> Generator[list[MaskedBatch], None, None]:
        """For each optimizer step from `position` on, without end: this rank's micro-batches.

        Args:
            position: sequences read before the first step.
            masking: of all steps.
            batch_size: sequences of each step over all ranks; None: `global_batch_size`.
        """
        size = batch_size or self.global_batch_size

        def make(start: int) -> list[MaskedBatch]:
            if self.sequences.read_ahead:
                self.sequences.read_ahead.move(self.order.shards_from(start, size))
            return [
                self.micro_batch(start, index, masking, size)
                for index in range(self.accumulation_steps(size))
            ]

        with ThreadPoolExecutor(1, thread_name_prefix="batches") as ahead:
            upcoming = ahead.submit(make, position)
            while True:
                if self._hashes:
                    self._hashes.check()
                batch = upcoming.result()
                position += size
                upcoming = ahead.submit(make, position)
                yield batch
