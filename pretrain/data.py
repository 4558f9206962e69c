"""Any sequence of a shard folder by its index, in a shuffled order that one integer stands for.

Reads contract A (docs/formats.md): tars are not compressed, so every block is memory-mapped where
it lies. The order of an epoch is a permutation seeded by (seed, epoch), known without a pass over
the data, so the whole state of the loader is the number of sequences read: resuming costs nothing
and the ranks may change, since a global batch is the same set of sequences whoever reads it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from bisect import bisect_right
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import PretrainError
from pretrain.manifest import content_sha256, parse_manifest, vocabulary_of
from pretrain.masking import MaskedBatch, mask_sequences
from pretrain.recipe import MaskingConfig
from pretrain.remote import is_remote, local_copy

# How byte-level BPE writes " ", "\n", "\t", and SentencePiece a space.
WORD_MARKS = ("\u0120", "\u010a", "\u0109", "\u2581")


class ShardFolder:
    """A finished data set: its manifest, checked against the files beside it."""

    def __init__(self, path: str | Path, cache_dir: str | Path = "~/.cache/latemask") -> None:
        """Open a folder, or what is at a URL by way of `cache_dir`."""
        remote = is_remote(str(path))
        self.path = local_copy(str(path), Path(cache_dir)) if remote else Path(path)
        self.manifest = self._read_manifest()
        self.seq_len: int = self.manifest["seq_len"]
        self.vocabulary = vocabulary_of(self.manifest, str(self.path / "manifest.json"))
        self.tokenizer_sha256: str = self.manifest["tokenizer_sha256"]
        self._check_tokenizer()

    def sequences(self, split: str) -> Sequences:
        """The sequences of `train` or `valid`."""
        splits = self.manifest["splits"]
        if split not in splits or splits[split]["sequences"] == 0:
            raise PretrainError(f"{self.path}/manifest.json: no sequences in split {split!r}")
        return Sequences(self.path, splits[split]["shards"], self)

    @cached_property
    def sha256(self) -> str:
        """Of what manifest.json says of the data: another data set has another."""
        return content_sha256((self.path / "manifest.json").read_bytes())

    @cached_property
    def word_starts(self) -> NDArray[np.bool_]:
        """[V] which tokens begin a word: BPE and Unigram mark them, WordPiece marks the others."""
        model = json.loads((self.path / "tokenizer.json").read_text())["model"]
        starts = np.ones(self.vocabulary.size, dtype=np.bool_)
        vocab = model["vocab"]
        if isinstance(vocab, list):  # Unigram's: [token, score] by id
            vocab = {token: index for index, (token, _) in enumerate(vocab)}
        for token, index in vocab.items():
            if model["type"] == "WordPiece":
                starts[index] = not token.startswith(model["continuing_subword_prefix"])
            else:
                starts[index] = token.startswith(WORD_MARKS)
        return starts

    def _read_manifest(self) -> dict[str, Any]:
        file = self.path / "manifest.json"
        if not self.path.is_dir():
            raise PretrainError(
                f"data.path: {self.path} is not a folder; make it with "
                f"`python -m pipeline --config FILE --output {self.path}`"
            )
        if not file.is_file():
            raise PretrainError(
                f"{file} is missing: not a data set, or its pipeline run did not end; "
                "run the `python -m pipeline` command that began it again, it resumes there"
            )
        return parse_manifest(file.read_bytes(), str(file))

    def _check_tokenizer(self) -> None:
        file = self.path / "tokenizer.json"
        if not file.is_file():
            raise PretrainError(f"{file} is missing; run the pipeline again to restore it")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != self.tokenizer_sha256:
            raise PretrainError(
                f"{file} is not the tokenizer that these shards were made with: sha256 is {found}, "
                f"manifest.json says {self.tokenizer_sha256}; put the right file back, or run the "
                "pipeline again"
            )


class Sequences:
    """The sequences of one split as an array [N, T] that stays on disk."""

    def __init__(self, path: Path, shards: list[dict[str, Any]], data: ShardFolder) -> None:
        self.seq_len = data.seq_len
        self.vocab_size = data.vocabulary.size
        dtype = data.manifest["dtype"]
        self._blocks: list[NDArray[np.integer]] = []
        self._names: list[tuple[Path, int]] = []  # of the blocks: file, number in it
        starts = [0]
        for shard in shards:
            file = path / shard["name"]
            size = file.stat().st_size if file.is_file() else None
            if size != shard["bytes"]:
                found = "is missing" if size is None else f"has {size:,} bytes"
                raise PretrainError(
                    f"{file} {found}, manifest.json says {shard['bytes']:,} bytes; "
                    f"`python -m pipeline verify {path}` names what to rebuild"
                )
            content = np.memmap(file, mode="r", dtype=np.uint8)
            width = self.seq_len * np.dtype(dtype).itemsize
            for number, block in enumerate(shard["blocks"]):
                begin, count = block["offset"], block["sequences"]
                if begin + count * width > len(content):
                    raise PretrainError(
                        f"{file}: manifest.json has block {number} end at byte "
                        f"{begin + count * width:,}, the file has {len(content):,}; "
                        f"`python -m pipeline verify {path}` names what to rebuild"
                    )
                raw = content[begin : begin + count * width]
                self._blocks.append(raw.view(dtype).reshape(count, self.seq_len))
                self._names.append((file, number))
                starts.append(starts[-1] + count)
        self._starts = starts

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """[B] indices -> [B, T] token ids.

        Raises:
            PretrainError: an id that the tokenizer lacks.
        """
        out = np.empty((len(indices), self.seq_len), dtype=np.int64)
        for row, index in enumerate(indices):
            block = bisect_right(self._starts, index) - 1
            out[row] = self._blocks[block][index - self._starts[block]]
        if out.size and out.max() >= self.vocab_size:
            row = int((out.max(axis=1) >= self.vocab_size).argmax())
            block = bisect_right(self._starts, indices[row]) - 1
            file, number = self._names[block]
            raise PretrainError(
                f"{file}, block {number}, sequence {indices[row] - self._starts[block]}: token "
                f"{out[row].max()} where the tokenizer has {self.vocab_size} tokens; the file "
                f"has changed: `python -m pipeline verify {file.parent}` names what to rebuild"
            )
        return out

    def token_counts(self, max_sequences: int = 100_000) -> NDArray[np.int64]:
        """[V] how often each token occurs in (at most `max_sequences`, evenly spread) sequences."""
        picked = np.linspace(0, len(self) - 1, min(len(self), max_sequences)).astype(np.int64)
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for start in range(0, len(picked), 4096):
            chunk = self[picked[start : start + 4096]]
            counts += np.bincount(chunk.ravel(), minlength=self.vocab_size)
        return counts


class ShardHashes:
    """Compares each shard with its sha256 in the manifest, in a thread beside the training."""

    def __init__(self, data: ShardFolder, rank: int, num_ranks: int) -> None:
        """This rank takes every `num_ranks`-th shard."""
        splits = data.manifest["splits"].values()
        shards = [shard for split in splits for shard in split["shards"]]
        self._mine = [shard for shard in shards[rank::num_ranks] if "sha256" in shard]
        self._path = data.path
        self._error: PretrainError | None = None
        self._thread = threading.Thread(target=self._compare, name="hashes", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until all are compared."""
        self._thread.join()

    def check(self) -> None:
        """Raise the PretrainError that the thread has found, if any."""
        if self._error is not None:
            raise self._error

    def _compare(self) -> None:
        for shard in self._mine:
            file = self._path / shard["name"]
            try:
                with file.open("rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                found = f"unknown ({error})"
            if found != shard["sha256"]:
                self._error = PretrainError(
                    f"{file} has sha256 {found}, manifest.json says {shard['sha256']}: the file "
                    f"has changed; `python -m pipeline verify {self._path}` names what to rebuild"
                )
                return


@lru_cache(maxsize=2)
def epoch_order(num_sequences: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """[N] the indices in the order in which an epoch reads them."""
    return np.random.default_rng([seed, epoch]).permutation(num_sequences)


def sequences_at(
    position: int, count: int, num_sequences: int, seed: int
) -> list[tuple[int, NDArray]]:
    """The `count` sequences that follow the first `position` ones, as (epoch, [n] indices) parts.

    A batch may hold the last sequences of one epoch and the first of the next.
    """
    parts = []
    while count > 0:
        epoch, offset = divmod(position, num_sequences)
        taken = min(count, num_sequences - offset)
        parts.append((epoch, epoch_order(num_sequences, seed, epoch)[offset : offset + taken]))
        position, count = position + taken, count - taken
    return parts


class Batches:
    """The micro-batches of one rank, from any position on; one step is made ahead in a thread."""

    def __init__(
        self,
        data: ShardFolder,
        *,
        seed: int,
        global_batch_size: int,
        micro_batch_size: int,
        initial_batch_size: int | None = None,
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
            rank: this one.
            num_ranks: all of them.
            hashes: whose finding ends the run as soon as it is there.

        Raises:
            PretrainError: a step can't be divided evenly among the ranks.
        """
        self.data = data
        self.sequences = data.sequences("train")
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
            for epoch, sequence_ids in sequences_at(
                begin, self.micro_batch_size, len(self.sequences), self.seed
            )
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
