"""Any sequence of a data set by its index.

Reads contract A (docs/formats.md): tars are not compressed, so every block is memory-mapped where
it lies. The shards of a URL come into a local cache as they are needed (`shard_cache.py`), and
`order.py` says when that is.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.config import DataConfig, is_url
from pretrain.errors import PretrainError
from pretrain.manifest import content_sha256, file_sha256, parse_manifest, vocabulary_of
from pretrain.remote import RETRY_SECONDS, ObjectStore
from pretrain.shard_cache import ReadAhead, ShardCache

# How byte-level BPE writes " ", "\n", "\t", and SentencePiece a space.
WORD_MARKS = ("\u0120", "\u010a", "\u0109", "\u2581")


class ShardFolder:
    """A finished data set: its manifest, checked against the files beside it."""

    def __init__(
        self,
        path: str | Path,
        cache_dir: str | Path = "~/.cache/latemask",
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Open a folder, or what is at a URL by way of `cache_dir`.

        Raises:
            PretrainError: no data set there, or its files don't belong together.
        """
        self.location = str(path)
        """The folder or URL."""
        self.cache: ShardCache | None = None
        """Of a URL's shards."""
        self.path = Path(path)
        """Holds manifest and tokenizer, and the shards unless there is a cache."""
        if is_url(self.location):
            store = ObjectStore(self.location, "data.path", retry_seconds)
            self.cache = ShardCache(store, Path(cache_dir))
            self.path = self.cache.folder
        self.manifest = self._read_manifest()
        self.seq_len: int = self.manifest["seq_len"]
        self.vocabulary = vocabulary_of(self.manifest, str(self.path / "manifest.json"))
        self.tokenizer_sha256: str = self.manifest["tokenizer_sha256"]
        self._check_tokenizer()

    @classmethod
    def from_config(cls, config: DataConfig) -> ShardFolder:
        """The data set of a run, its cache as large as the config says."""
        data = cls(config.path, config.cache_dir, config.retry_seconds)
        data._limit_cache(config)
        return data

    def sequences(self, split: str) -> Sequences:
        """The sequences of `train` or `valid`."""
        splits = self.manifest["splits"]
        if split not in splits or splits[split]["sequences"] == 0:
            raise PretrainError(f"{self.path}/manifest.json: no sequences in split {split!r}")
        return Sequences(self, splits[split]["shards"])

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

    def _limit_cache(self, config: DataConfig) -> None:
        """Raises PretrainError where the order needs more shards at once than there is room for."""
        if self.cache is None:
            return
        shards = [s for split in self.manifest["splits"].values() for s in split["shards"]]
        largest = max((shard["bytes"] for shard in shards), default=0)
        window = config.shuffle_shards
        if window is None or window >= len(shards):
            needed, usual = self.cache.total_bytes, self.cache.total_bytes
        else:
            needed, usual = (window + 2) * largest, (window + 4) * largest
        self.cache.limit_bytes = usual
        if config.cache_gb is None:
            return
        self.cache.limit_bytes = int(1e9 * config.cache_gb)
        if self.cache.limit_bytes < needed:
            raise PretrainError(
                f"data.cache_gb is {config.cache_gb:g}, and shuffling {self.location} over "
                f"{window or 'all'} of its {len(shards)} shards (data.shuffle_shards) needs "
                f"{needed / 1e9:.3g}: raise data.cache_gb, or set data.shuffle_shards to fewer"
            )

    def _check_tokenizer(self) -> None:
        file = self.path / "tokenizer.json"
        if not file.is_file():
            raise PretrainError(f"{file} is missing; run the pipeline again to restore it")
        found = file_sha256(file)
        if found != self.tokenizer_sha256:
            raise PretrainError(
                f"{file} is not the tokenizer that these shards were made with: sha256 is {found}, "
                f"manifest.json says {self.tokenizer_sha256}; put the right file back, or run the "
                "pipeline again"
            )


@dataclass(frozen=True)
class _Block:
    """Where a block lies: the index of its shard, its number there, its first byte."""

    shard: int
    number: int
    offset: int
    sequences: int


class Sequences:
    """The sequences of one split as an array [N, T] that stays on disk, or at a URL."""

    def __init__(self, data: ShardFolder, shards: list[dict[str, Any]]) -> None:
        self.seq_len = data.seq_len
        self.vocab_size = data.vocabulary.size
        self.shard_sequences = [sum(b["sequences"] for b in shard["blocks"]) for shard in shards]
        self.read_ahead: ReadAhead | None = None
        """Of a URL's shards."""
        self._dtype = np.dtype(data.manifest["dtype"])
        self._location = data.location
        self._names: list[str] = [shard["name"] for shard in shards]
        self._blocks: list[_Block] = []
        starts = [0]
        for index, shard in enumerate(shards):
            for number, entry in enumerate(shard["blocks"]):
                block = _Block(index, number, entry["offset"], entry["sequences"])
                self._require_within(shard, block)
                self._blocks.append(block)
                starts.append(starts[-1] + block.sequences)
        self._starts = starts
        # Of the blocks; None where the shard is not held.
        self._arrays: list[NDArray[np.integer] | None] = [None] * len(self._blocks)
        if data.cache:
            self.read_ahead = ReadAhead(data.cache, shards, on_release=self._drop)
        else:
            contents = [_memory_map(data.path, shard) for shard in shards]
            self._arrays = [self._view(contents[block.shard], block) for block in self._blocks]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """[B] indices -> [B, T] token ids.

        Raises:
            PretrainError: an id that the tokenizer lacks, or a shard that can't be fetched.
        """
        out = np.empty((len(indices), self.seq_len), dtype=np.int64)
        for row, index in enumerate(indices):
            number = bisect_right(self._starts, index) - 1
            array = self._arrays[number]
            if array is None:
                array = self._fetch(number)
            out[row] = array[index - self._starts[number]]
        if out.size and out.max() >= self.vocab_size:
            row = int((out.max(axis=1) >= self.vocab_size).argmax())
            number = bisect_right(self._starts, indices[row]) - 1
            block = self._blocks[number]
            sequence = indices[row] - self._starts[number]
            raise PretrainError(
                f"{self._location}/{self._names[block.shard]}, block {block.number}, sequence "
                f"{sequence}: token {out[row].max()} where the tokenizer has {self.vocab_size} "
                f"tokens; the file has changed: `python -m pipeline verify "
                f"{self._location}` names what to rebuild"
            )
        return out

    def _fetch(self, number: int) -> NDArray[np.integer]:
        assert self.read_ahead is not None
        block = self._blocks[number]
        array = self._view(self.read_ahead.content(block.shard), block)
        self._arrays[number] = array
        return array

    def _drop(self, shard: int) -> None:
        for number, block in enumerate(self._blocks):
            if block.shard == shard:
                self._arrays[number] = None

    def _view(self, content: NDArray[np.uint8], block: _Block) -> NDArray[np.integer]:
        end = block.offset + self._bytes_of(block)
        return content[block.offset : end].view(self._dtype).reshape(block.sequences, self.seq_len)

    def _bytes_of(self, block: _Block) -> int:
        return block.sequences * self.seq_len * self._dtype.itemsize

    def _require_within(self, shard: dict[str, Any], block: _Block) -> None:
        if (end := block.offset + self._bytes_of(block)) > shard["bytes"]:
            raise PretrainError(
                f"{self._location}/{shard['name']}: manifest.json has block {block.number} end at "
                f"byte {end:,}, the file has {shard['bytes']:,}; `python -m pipeline verify "
                f"{self._location}` names what to rebuild"
            )

    def token_counts(self, max_sequences: int = 100_000) -> NDArray[np.int64]:
        """[V] how often each token occurs in (at most `max_sequences`, evenly spread) sequences.

        At a URL they are those of the first shard with any: all of them would have to be fetched.
        """
        total = len(self)
        if self.read_ahead:
            total = next(count for count in self.shard_sequences if count)
        picked = np.linspace(0, total - 1, min(total, max_sequences)).astype(np.int64)
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for start in range(0, len(picked), 4096):
            chunk = self[picked[start : start + 4096]]
            counts += np.bincount(chunk.ravel(), minlength=self.vocab_size)
        return counts


def _memory_map(folder: Path, shard: dict[str, Any]) -> NDArray[np.uint8]:
    """The bytes of a shard's file, whose size is what the manifest says."""
    file = folder / shard["name"]
    size = file.stat().st_size if file.is_file() else None
    if size != shard["bytes"]:
        found = "is missing" if size is None else f"has {size:,} bytes"
        raise PretrainError(
            f"{file} {found}, manifest.json says {shard['bytes']:,} bytes; "
            f"`python -m pipeline verify {folder}` names what to rebuild"
        )
    return np.memmap(file, mode="r", dtype=np.uint8)


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
                found = file_sha256(file)
            except OSError as error:
                found = f"unknown ({error})"
            if found != shard["sha256"]:
                self._error = PretrainError(
                    f"{file} has sha256 {found}, manifest.json says {shard['sha256']}: the file "
                    f"has changed; `python -m pipeline verify {self._path}` names what to rebuild"
                )
                return
