"""Which documents go to which shard: each holds a range of document hashes.

The ranges are chosen so that all shards of a split have equally many tokens, to within a document
or a 2^20th of the corpus. `.work/assigned/train.npy` says where the documents and tokens of every
shard lie in the files of every group (BOUNDS), so that a shard opens nothing but its own parts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config import Shards
from pipeline.split import SplitName
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.tokens.encoded import INDEX, SHARDED, index_name, starts_name, tokens_name

BOUNDS = np.dtype([("document", "i8"), ("token", "i8")])
STAGE = "assign shards"
TOKENS_PER_SHARD = 1 << 27  # 268 MB at two bytes a token
SMALL_SHARDS = 8  # for as many readers
TOKENS_PER_SMALL_SHARD = 1 << 19
_BUCKETS = 1 << 20  # of the hash space, in which tokens are counted


def assign_shards(folder: Folder, groups: int, shards: Shards, fewest_tokens: int) -> None:
    """Write where every shard lies: BOUNDS [shards + 1, groups] of each split.

    Documents `[shard, group]` to `[shard + 1, group]` are a shard's. Two passes over the indexes
    of all groups, one group at a time.

    Args:
        folder: holds the groups.
        groups: how many there are.
        shards: of each split, at most; None: as many as is usual.
        fewest_tokens: of a shard on average: there are fewer shards where that asks for it.
    """
    totals = np.zeros((len(SHARDED), _BUCKETS), np.int64)
    for group in range(groups):
        count_tokens(folder.load(index_name(group)), totals)
    firsts = []
    for split, tokens in zip(SHARDED, totals, strict=True):
        total = int(tokens.sum())
        number = min(_asked(shards)[split] or usual_number(total), total // fewest_tokens)
        firsts.append(first_buckets(tokens, max(1, number)))
    found = [np.zeros((len(buckets), groups), BOUNDS) for buckets in firsts]
    for group in range(groups):
        index = folder.load(index_name(group))
        for code, buckets in enumerate(firsts):
            found[code][:, group] = bounds(index, code, buckets)
    for split, array in zip(SHARDED, found, strict=True):
        folder.write(_name(split), work.array_bytes(array))


def shard_counts(folder: Folder, shards: Shards) -> dict[SplitName, int]:
    """Number of shards of each split: as `assign_shards` has decided, or before as asked for, and
    at least one."""
    try:
        return {split: len(folder.array(_name(split))) - 1 for split in SHARDED}
    except FileNotFoundError:
        return {split: number or 1 for split, number in _asked(shards).items()}


def usual_number(tokens: int) -> int:
    """Shards for so many tokens: large ones, but several also of a small corpus."""
    return max(tokens // TOKENS_PER_SHARD, min(SMALL_SHARDS, tokens // TOKENS_PER_SMALL_SHARD))


def _asked(shards: Shards) -> dict[SplitName, int | None]:
    return {"train": shards.train, "valid": shards.valid}


def count_tokens(index: np.ndarray, totals: np.ndarray) -> None:
    """Add tokens and separators of the documents of an INDEX to int64 [splits, buckets]."""
    cells = index["split"] * np.int64(_BUCKETS) + _bucket(index)
    np.add.at(totals.reshape(-1), cells, index["length"] + np.int64(1))


def first_buckets(tokens: np.ndarray, shards: int) -> np.ndarray:
    """int64 [shards + 1]: the first bucket of every shard, and the end of the last one's."""
    ends = np.cumsum(tokens)
    wanted = ends[-1] * np.arange(1, shards) / shards
    return np.concatenate([[0], np.searchsorted(ends, wanted) + 1, [_BUCKETS]])


def bounds(index: np.ndarray, split: int, first: np.ndarray) -> np.ndarray:
    """BOUNDS [shards + 1]: where the shards that begin at these buckets begin in an INDEX."""
    start, stop = np.searchsorted(index["split"], [split, split + 1])
    document = start + np.searchsorted(_bucket(index[start:stop]), first)
    tokens = np.concatenate([[0], np.cumsum(index["length"], dtype=np.int64)])
    found = np.empty(len(first), BOUNDS)
    found["document"] = document
    found["token"] = tokens[document]
    return found


def _bucket(index: np.ndarray) -> np.ndarray:
    """int64 [documents]: the 2^20th of the hash space that a document lies in."""
    return (index["hash"][:, 0] >> np.uint64(44)).astype(np.int64)


class ShardDocuments(NamedTuple):
    """Token ids of the documents of one shard by their hashes, and their sentence starts."""

    tokens: list[np.ndarray]
    starts: list[np.ndarray] | None


def shard_documents(
    folder: Folder, split: SplitName, shard: int, *, dtype: np.dtype, sentences: bool
) -> ShardDocuments:
    """The documents of one shard, ordered by document hash (then group).

    Args:
        folder: holds the groups.
        split: of the shard.
        shard: its number in the split.
        dtype: of the token ids.
        sentences: whether their starts are asked for, too.
    """
    parts: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    hashes = [np.empty((0, 2), np.uint64)]
    begin, end = folder.load(_name(split))[shard : shard + 2]
    for group in np.flatnonzero(begin["document"] < end["document"]).tolist():
        documents = slice(begin["document"][group], end["document"][group])
        tokens = slice(begin["token"][group], end["token"][group])
        index = folder.rows(index_name(group), documents, INDEX)
        cuts = np.cumsum(index["length"][:-1], dtype=np.int64)
        parts += np.split(folder.rows(tokens_name(group), tokens, dtype), cuts)
        if sentences:
            starts = folder.rows(starts_name(group), tokens, np.dtype(bool))
            marks += np.split(starts, cuts)
        hashes.append(index["hash"])
    keys = np.concatenate(hashes)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    return ShardDocuments(
        [parts[i] for i in order], [marks[i] for i in order] if sentences else None
    )


def _name(split: SplitName) -> str:
    return f"{work.WORK}/assigned/{split}.npy"
