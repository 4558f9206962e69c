"""The tokens of a chunk, on disk, laid out so that a shard can read its own part alone.

`.work/tokens/00012.npy` holds all token ids of the chunk's kept documents, one after another,
ordered by (split, shard, document hash); `00012.index.npz` says, per document, its shard number
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

from pipeline import work
from pipeline.config import Config, Shards
from pipeline.documents import kept_documents
from pipeline.split import SplitName, document_hash, shard_of, split_of


def tokens_path(folder: Path, chunk: int) -> Path:
    """File of a chunk's token ids."""
    return folder / work.WORK / "tokens" / f"{chunk:05}.npy"


def index_path(folder: Path, chunk: int) -> Path:
    """File of where each document lies in `tokens_path`."""
    return folder / work.WORK / "tokens" / f"{chunk:05}.index.npz"


def shard_number(split: SplitName, shard: int, shards: Shards) -> int:
    """One number for all shards: train from 0, valid behind."""
    return shard + (shards.train if split == "valid" else 0)


def tokenize_chunk(
    folder: Path, chunk: int, config: Config, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Tokenize the kept documents of a chunk; the receipt, at once when it has been done before.

    The receipt's counts are documents by source and split; `lengths` the number of documents of
    less than 2, 4, 8, … tokens (and no less than half of that).
    """
    path = tokens_path(folder, chunk)
    receipt = work.read_receipt(path)
    if receipt and work.read_receipt(index_path(folder, chunk)):
        return receipt
    counts: dict[str, Counter[str]] = {}
    texts: list[str] = []
    places: list[tuple[int, bytes]] = []
    for document in kept_documents(folder, chunk):
        digest = document_hash(document.id)
        split = split_of(digest, config.split)
        counts.setdefault(document.source, Counter())[split] += 1
        if split != "tasks":
            number = shard_number(split, shard_of(digest, split, config.shards), config.shards)
            texts.append(document.text)
            places.append((number, digest))
    encoded = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    order = sorted(range(len(places)), key=lambda i: places[i])
    tokens = [np.asarray(encoded[i], config.dtype) for i in order]
    lengths = np.array([len(t) for t in tokens], np.uint32)
    index = io.BytesIO()
    np.savez(
        index,
        shard=np.array([places[i][0] for i in order], np.int32),
        hash=np.frombuffer(b"".join(places[i][1] for i in order), ">u8").reshape(-1, 2),
        length=lengths,
    )
    flat = io.BytesIO()
    np.save(flat, np.concatenate([np.empty(0, config.dtype), *tokens]))
    work.write_atomic(index_path(folder, chunk), index.getvalue())
    work.write_receipt(index_path(folder, chunk))
    work.write_atomic(path, flat.getvalue())
    histogram = Counter(str(2 ** int(length).bit_length()) for length in lengths)
    return work.write_receipt(path, counts=counts, lengths=histogram)


def shard_documents(folder: Path, chunks: int, number: int) -> list[np.ndarray]:
    """Token ids of the documents of one shard, ordered by document hash (then chunk)."""
    parts: list[np.ndarray] = []
    keys: list[tuple[int, ...]] = []
    for chunk in range(chunks):
        with np.load(index_path(folder, chunk)) as index:
            shard, hashes, lengths = index["shard"], index["hash"], index["length"]
        mine = np.flatnonzero(shard == number)
        if not len(mine):
            continue
        ends = np.cumsum(lengths, dtype=np.int64)
        tokens = np.load(tokens_path(folder, chunk), mmap_mode="r")
        for position in mine:
            parts.append(np.array(tokens[ends[position] - lengths[position] : ends[position]]))
            keys.append((*map(int, hashes[position]), chunk, len(keys)))
    return [parts[i] for i in sorted(range(len(parts)), key=keys.__getitem__)]
