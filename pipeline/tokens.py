"""The tokens of a piece, on disk, laid out so that a shard can read its own part alone.

`.work/tokens/00012-000.npy` holds all token ids of the piece's kept documents, one after another,
ordered by (split, shard, document hash); `00012-000.index.npz` says, per document, its shard number
(`shard`, int32: train shards from 0, then valid), hash (`hash`, [n, 2] uint64) and length in
tokens (`length`, uint32).
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from pipeline import pieces, work
from pipeline.config import Config, Shards, source_name
from pipeline.split import SplitName, document_hash, shard_of, split_of


def tokens_path(folder: Path, piece: str) -> Path:
    """File of a piece's token ids."""
    return folder / work.WORK / "tokens" / f"{piece}.npy"


def index_path(folder: Path, piece: str) -> Path:
    """File of where each document lies in `tokens_path`."""
    return folder / work.WORK / "tokens" / f"{piece}.index.npz"


def shard_number(split: SplitName, shard: int, shards: Shards) -> int:
    """One number for all shards: train from 0, valid behind."""
    return shard + (shards.train if split == "valid" else 0)


def tokenize_piece(
    folder: Path, piece: str, config: Config, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Tokenize the kept documents of a piece; the receipt, at once when it has been done before.

    The receipt's counts are documents by source: dropped as duplicates, by split, and `repeated`,
    the further copies of training documents that a weight above 1 asks for; `lengths` the number of
    documents of less than 2, 4, 8, … tokens (and no less than half of that).
    """
    path = tokens_path(folder, piece)
    receipt = work.read_receipt(path)
    if receipt and work.read_receipt(index_path(folder, piece)):
        return receipt
    weights = {source_name(s): s.weight for s in config.sources}
    counts: dict[str, Counter[str]] = {}
    texts: list[str] = []
    places: list[tuple[int, bytes, int]] = []  # shard, hash, position in `texts`
    gone = pieces.dropped(folder, piece)
    for ordinal, document in enumerate(pieces.read_documents(folder, piece)):
        count = counts.setdefault(document.source, Counter())
        if ordinal in gone:
            count[gone[ordinal]] += 1
            continue
        split = split_of(document_hash(document.id), config.split)
        count[split] += 1
        if split == "tasks":
            continue
        copies = copies_of(document.id, weights.get(document.source, 1)) if split == "train" else 1
        count["repeated"] += copies - 1
        for copy in range(copies):
            digest = document_hash(document.id if copy == 0 else f"{document.id} copy {copy}")
            number = shard_number(split, shard_of(digest, split, config.shards), config.shards)
            places.append((number, digest, len(texts)))
        texts.append(document.text)
    encoded = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    places.sort()
    tokens = [np.asarray(encoded[at], config.dtype) for *_, at in places]
    lengths = np.array([len(t) for t in tokens], np.uint32)
    index = io.BytesIO()
    np.savez(
        index,
        shard=np.array([number for number, *_ in places], np.int32),
        hash=np.frombuffer(b"".join(digest for _, digest, _ in places), ">u8").reshape(-1, 2),
        length=lengths,
    )
    flat = io.BytesIO()
    np.save(flat, np.concatenate([np.empty(0, config.dtype), *tokens]))
    work.write_atomic(index_path(folder, piece), index.getvalue())
    work.write_receipt(index_path(folder, piece))
    work.write_atomic(path, flat.getvalue())
    histogram = Counter(str(2 ** len(ids).bit_length()) for ids in encoded)
    return work.write_receipt(
        path, counts=counts, lengths=histogram, tokens=int(lengths.sum()), copies=len(lengths)
    )


def copies_of(document_id: str, weight: float) -> int:
    """How often a training document is seen: weight rounded up or down, by a hash of its id."""
    lot = int.from_bytes(document_hash(f"copies:{document_id}")[:8], "big") / 2**64
    return max(int(weight) + (lot < weight % 1), 1)


def shard_documents(folder: Path, names: list[str], number: int) -> list[np.ndarray]:
    """Token ids of the documents of one shard, ordered by document hash (then piece)."""
    parts: list[np.ndarray] = []
    keys: list[tuple[int, ...]] = []
    for position, piece in enumerate(names):
        with np.load(index_path(folder, piece)) as index:
            shard, hashes, lengths = index["shard"], index["hash"], index["length"]
        mine = np.flatnonzero(shard == number)
        if not len(mine):
            continue
        ends = np.cumsum(lengths, dtype=np.int64)
        tokens = np.load(tokens_path(folder, piece), mmap_mode="r")
        for at in mine:
            parts.append(np.array(tokens[ends[at] - lengths[at] : ends[at]]))
            keys.append((*map(int, hashes[at]), position, len(keys)))
    return [parts[i] for i in sorted(range(len(parts)), key=keys.__getitem__)]
