"""Which documents are dropped as equal or nearly equal to another: records, pairs, components.

1. `records`: every document gives a record of its text's hash and, for near-duplicates, one of each
   LSH band of its MinHash signature.
2. `match`: the records of one part of the hash space, of all pieces, give pairs of documents: equal
   texts, and those whose signatures agree in a band and in at least `threshold` of all hashes.
3. `settle`: pairs make connected components. Of equal texts the one with the smallest document hash
   stays; of a whole component the longest text. So the choice depends on neither order nor chunks.

A document's number is its place among all documents of the pieces in their order. Memory: `match`
holds about `_RECORDS` records, `settle` 17 bytes a pair and some 60 bytes a document in a pair.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import numpy as np

from pipeline.config import NearDuplicates
from pipeline.dedup.minhash import band_keys, estimated_jaccard
from pipeline.sources.records import Document
from pipeline.split import document_hash
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.store.pieces import array_name, dropped_name, piece_receipt, pieces
from pipeline.store.stored_array import rows_between

RECORD = np.dtype([("high", "u8"), ("low", "u8"), ("ordinal", "u4"), ("near", "u1")])
FACTS = np.dtype([("hash", "u8", 2), ("characters", "u8")])
PAIR = np.dtype([("a", "u8"), ("b", "u8"), ("near", "u1")])
DROPS = ("duplicate", "near_duplicate")
_RECORDS = 4_000_000  # in one part of the hash space, about
_PAIRS_AT_ONCE = 200_000


def records(
    documents: list[Document], signatures: np.ndarray | None, settings: NearDuplicates | None
) -> np.ndarray:
    """RECORD [documents · (1 + bands)], sorted by the high half of the key."""
    count = len(documents)
    exact = np.zeros(count, RECORD)
    digests = np.frombuffer(b"".join(_text_hash(d.text) for d in documents), ">u8").reshape(-1, 2)
    exact["high"], exact["low"] = digests[:, 0], digests[:, 1]
    exact["ordinal"] = np.arange(count)
    found = [exact]
    if signatures is not None and settings is not None:
        keys = band_keys(signatures, settings)
        for band in range(settings.bands):
            near = np.zeros(count, RECORD)
            near["high"], near["low"], near["near"] = keys[:, band], band, 1
            near["ordinal"] = np.arange(count)
            found.append(near)
    together = np.concatenate(found)
    return together[np.argsort(together["high"], kind="stable")]


def _text_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def facts(documents: list[Document]) -> np.ndarray:
    """FACTS [documents]: document hash and length, what `settle` chooses by."""
    array = np.zeros(len(documents), FACTS)
    digests = b"".join(document_hash(d.id) for d in documents)
    array["hash"] = np.frombuffer(digests, ">u8").reshape(-1, 2)
    array["characters"] = [len(d.text) for d in documents]
    return array


def parts(folder: Folder, chunks: int) -> int:
    """In how many parts `match` takes the hash space of these chunks."""
    total = sum(piece_receipt(folder, p)["records"] for p in pieces(folder, chunks))
    return max(8, -(-total // _RECORDS))


def match(folder: Folder, chunks: int, part: int, of: int, settings: NearDuplicates | None) -> int:
    """Write the pairs of one part of the hash space; their number."""
    low = part * 2**64 // of
    high = (part + 1) * 2**64 // of - 1
    names = pieces(folder, chunks)
    offsets = _offsets(folder, names)
    found = []
    numbers = []
    for name, offset in zip(names, offsets[:-1], strict=True):
        keys = folder.array(array_name(name, "keys"))
        found.append(rows_between(keys, "high", low, high))
        numbers.append(found[-1]["ordinal"].astype(np.uint64) + offset)
    keys = np.concatenate([np.empty(0, RECORD), *found])
    number = np.concatenate([np.empty(0, np.uint64), *numbers])
    order = np.lexsort((number, keys["low"], keys["high"], keys["near"]))
    keys, number = keys[order], number[order]
    same = np.ones(len(keys), bool)  # as the record before
    for column in ("near", "high", "low"):
        same[1:] &= keys[column][1:] == keys[column][:-1]
    same[:1] = False
    first_of_group = np.maximum.accumulate(np.where(same, 0, np.arange(len(keys))))
    at = np.flatnonzero(same)
    pairs = np.zeros(2 * len(at), PAIR)  # with the first of the group, and with the one before
    pairs["a"] = np.concatenate([number[first_of_group[at]], number[at - 1]])
    pairs["b"] = np.concatenate([number[at]] * 2)
    pairs["near"] = np.concatenate([keys["near"][at]] * 2)
    pairs = np.unique(pairs)
    if settings:
        pairs = _similar(folder, names, offsets, pairs, settings.threshold)
    content = io.BytesIO()
    np.save(content, pairs)
    folder.write(_pairs_name(part), content.getvalue())
    return len(pairs)


def _similar(
    folder: Folder, names: list[str], offsets: np.ndarray, pairs: np.ndarray, threshold: float
) -> np.ndarray:
    """The exact pairs, and those near ones whose estimated similarity reaches the threshold."""
    near = np.flatnonzero(pairs["near"])
    keep = pairs["near"] == 0
    for start in range(0, len(near), _PAIRS_AT_ONCE):
        some = near[start : start + _PAIRS_AT_ONCE]
        a, b = (_gather(folder, names, offsets, pairs[k][some], "signatures") for k in ("a", "b"))
        keep[some] = estimated_jaccard(a, b) >= threshold
    return pairs[keep]


def settle(folder: Folder, chunks: int, of: int) -> dict[str, int]:
    """Write which ordinals of every piece are dropped; documents dropped by reason, and kept.

    `.work/dropped/examples.json` names some: `{reason: [[piece, ordinal, piece kept, ordinal]]}`.
    """
    names = pieces(folder, chunks)
    offsets = _offsets(folder, names)
    loaded = [folder.array(_pairs_name(part))[:] for part in range(of)]
    pairs = np.concatenate([np.empty(0, PAIR), *loaded])
    ids, ends = np.unique(np.concatenate([pairs["a"], pairs["b"]]), return_inverse=True)
    ends = ends.reshape(2, -1)
    chosen_by = _gather(folder, names, offsets, ids, "facts")
    exact = _best(ends[:, pairs["near"] == 0], chosen_by)
    best = _best(ends, chosen_by)
    is_duplicate = exact != np.arange(len(ids))
    is_near = ~is_duplicate & (best != np.arange(len(ids)))

    piece_of = np.searchsorted(offsets, ids, "right") - 1
    ordinals = ids - offsets[piece_of] if len(ids) else ids
    examples: dict[str, list[list[object]]] = {}
    for reason, where, kept in zip(DROPS, (is_duplicate, is_near), (exact, best), strict=True):
        at = np.flatnonzero(where)
        for i in at[np.argsort(chosen_by["hash"][at, 0])][:5]:
            pair = [x for j in (i, kept[i]) for x in (names[piece_of[j]], int(ordinals[j]))]
            examples.setdefault(reason, []).append(pair)
    for number, name in enumerate(names):
        mine = piece_of == number
        reasons = zip(DROPS, (is_duplicate, is_near), strict=True)
        work.write_json(
            folder,
            dropped_name(name),
            {reason: ordinals[mine & where].tolist() for reason, where in reasons},
        )
    work.write_json(folder, dropped_name("examples"), examples)
    dropped = {"duplicate": int(is_duplicate.sum()), "near_duplicate": int(is_near.sum())}
    return {**dropped, "kept": int(offsets[-1]) - sum(dropped.values())}


def _best(ends: np.ndarray, chosen_by: np.ndarray) -> np.ndarray:
    """For every document the one that stays of its component: the longest, then smallest hash."""
    from scipy.sparse import coo_matrix  # here, since one worker in all needs it
    from scipy.sparse.csgraph import connected_components

    count = len(chosen_by)
    graph = coo_matrix((np.ones(ends.shape[1], bool), (ends[0], ends[1])), (count, count))
    _, label = connected_components(graph, directed=False)
    order = np.lexsort(
        (chosen_by["hash"][:, 1], chosen_by["hash"][:, 0], ~chosen_by["characters"], label)
    )
    first = np.ones(count, bool)
    first[1:] = label[order][1:] != label[order][:-1]
    return order[first][label] if count else order


def _offsets(folder: Folder, names: list[str]) -> np.ndarray:
    """uint64 [pieces + 1]: number of the first document of each piece, and of all."""
    counts = [piece_receipt(folder, name)["documents"] for name in names]
    return np.cumsum([0, *counts], dtype=np.uint64)


def _gather(
    folder: Folder, names: list[str], offsets: np.ndarray, numbers: np.ndarray, kind: str
) -> np.ndarray:
    """Rows of an array of all pieces, for documents in any order."""
    rows: np.ndarray | None = None
    for piece, at in _by_piece(numbers, offsets):
        array = folder.array(array_name(names[piece], kind))
        if rows is None:
            rows = np.empty((len(numbers), *array.shape[1:]), array.dtype)
        rows[at] = array[numbers[at] - offsets[piece]]
    return np.empty(0, FACTS) if rows is None else rows


def _by_piece(numbers: np.ndarray, offsets: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(piece, positions in `numbers` of its documents) for every piece that has some."""
    piece = np.searchsorted(offsets, numbers, "right") - 1
    order = np.argsort(piece, kind="stable")
    starts = np.flatnonzero(np.diff(piece[order], prepend=-1))
    for start, stop in zip(starts, np.append(starts, len(order))[1:], strict=True):
        yield int(piece[order[start]]), order[start:stop]


def _pairs_name(part: int) -> str:
    return f"{work.WORK}/pairs/{part:05}.npy"
