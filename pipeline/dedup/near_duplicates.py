"""Documents with nearly equal texts, among those whose texts differ.

1. `sign`: MinHash signatures of the documents of one group of pieces, a record of each of their
   LSH bands, and the facts that `drop` chooses by.
2. `match`: the bands of one part of the hash space, of all groups, give candidates: pairs of
   documents that agree in a band.
3. `verify`: of the candidates whose first documents are in one range, each once though they may
   agree in many bands, those stay that agree in at least `threshold` of all hashes.
4. `drop`: pairs make connected components; of each the longest text stays.

Exact duplicates are dropped before: they agree in every band with each other and with all that is
near to one of them. Here documents are numbered without them ("rows").
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

import numpy as np

from pipeline.config import Config, NearDuplicates
from pipeline.dedup import hash_space, minhash
from pipeline.dedup.components import FACTS, Survivors, flatten, join, new_parents
from pipeline.sources.records import Document
from pipeline.split import document_hash
from pipeline.store import dropped, pieces, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder

BAND = np.dtype([("key", "u8"), ("row", "u4")], align=True)
PAIR = np.dtype([("a", "u8"), ("b", "u8")])
_PAIRS_AT_ONCE = 1_000_000  # two signatures of 480 bytes each; a batch opens all groups' files


def sign(folder: Folder, config: Config, group: int) -> dict[str, Any]:
    """Sign the documents of a group; the receipt, at once when it has been done before."""
    settings = config.near_duplicates
    assert settings
    paths = {kind: group_name(group, kind) for kind in ("bands", "facts", "signatures")}
    if all(receipts := [work.read_receipt(folder, path) for path in paths.values()]):
        return cast(dict[str, Any], receipts[-1])
    catalog = Catalog.load(folder)
    marks = dropped.marks(folder, dropped.DUPLICATE)
    signed = [np.empty((0, settings.bands * settings.rows), np.uint32)]
    known = [np.empty(0, FACTS)]
    for piece in catalog.group(group):
        documents = list(pieces.read_documents(folder, catalog.name(piece)))
        kept = np.flatnonzero(~marks[catalog.numbers(piece)])
        some = [documents[ordinal] for ordinal in kept]
        signed.append(minhash.signatures([d.text for d in some], settings))
        known.append(facts(some))
    signatures = np.concatenate(signed)
    contents = {
        "bands": bands(signatures, settings),
        "facts": np.concatenate(known),
        "signatures": signatures,
    }
    receipt: dict[str, Any] = {}
    for kind, array in contents.items():
        content = work.array_bytes(array)
        receipt = work.write_certified(folder, paths[kind], content, documents=len(signatures))
    return receipt


def facts(documents: list[Document]) -> np.ndarray:
    """FACTS [documents]: document hash and length."""
    array = np.zeros(len(documents), FACTS)
    digests = b"".join(document_hash(d.id) for d in documents)
    array["hash"] = np.frombuffer(digests, ">u8").reshape(-1, 2)
    array["characters"] = [len(d.text) for d in documents]
    return array


def bands(signatures: np.ndarray, settings: NearDuplicates) -> np.ndarray:
    """BAND [documents · bands] of signatures [documents, hashes], sorted by key."""
    keys = minhash.band_keys(signatures, settings)
    records = np.zeros(keys.size, BAND)
    records["key"] = keys.ravel()
    records["row"] = np.repeat(np.arange(len(keys), dtype=np.uint32), settings.bands)
    return records[np.argsort(records["key"], kind="stable")]


def parts(folder: Folder, config: Config) -> int:
    """In how many parts `match` takes the hash space."""
    assert config.near_duplicates
    return hash_space.parts(int(_offsets(folder)[-1]) * config.near_duplicates.bands)


def match(folder: Folder, part: int, of: int) -> int:
    """Write the candidates of one part of the hash space; their number."""
    offsets = _offsets(folder)
    keys = [np.empty(0, np.uint64)]
    rows = [np.empty(0, np.uint64)]
    for group, offset in enumerate(offsets[:-1]):
        array = folder.array(group_name(group, "bands"))
        some = hash_space.rows_of_part(array, "key", part, of)
        keys.append(some["key"])
        rows.append(some["row"] + offset)
    pairs = candidates(np.concatenate(keys), np.concatenate(rows))
    bounds = np.searchsorted(pairs["a"], _first_rows(offsets, of))
    folder.write(_candidates_name(part), work.array_bytes(pairs))
    folder.write(_bounds_name(part), work.array_bytes(bounds))
    return len(pairs)


def _first_rows(offsets: np.ndarray, of: int) -> np.ndarray:
    """uint64 [of + 1]: where each part of all rows begins, and the last one ends."""
    rows = int(offsets[-1])
    return np.array([part * rows // of for part in range(of + 1)], np.uint64)


def candidates(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """PAIR [n], each once: every row of a key with the key's first, and with the one before.

    Few pairs even where many rows have one key, and enough for a chain of similar texts.
    """
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    again = np.zeros(len(keys), bool)
    again[1:] = keys[1:] == keys[:-1]
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(keys))))
    at = np.flatnonzero(again)
    a = np.concatenate([rows[first[at]], rows[at - 1]])
    b = np.concatenate([rows[at], rows[at]])
    return _distinct(a, b)


def _distinct(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """PAIR [n] by a and b, each once, without pairs of a document and itself."""
    order = np.lexsort((b, a))  # np.unique takes ten times as long for records
    pairs = np.empty(len(a), PAIR)
    pairs["a"] = a[order]
    pairs["b"] = b[order]
    new = pairs["a"] != pairs["b"]
    new[1:] &= pairs[1:] != pairs[:-1]
    return pairs[new]


def verify(folder: Folder, config: Config, part: int, of: int) -> int:
    """Write the pairs whose first documents are in one part of all rows; their number."""
    assert config.near_duplicates
    offsets = _offsets(folder)
    found = [np.empty(0, PAIR)]
    for matched in range(of):
        start, stop = folder.load(_bounds_name(matched))[part : part + 2]
        found.append(folder.rows(_candidates_name(matched), slice(start, stop), PAIR))
    together = np.concatenate(found)
    pairs = _distinct(together["a"], together["b"])
    keep = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        batch = slice(start, start + _PAIRS_AT_ONCE)
        a = _gather_signatures(folder, offsets, pairs["a"][batch])
        b = _gather_signatures(folder, offsets, pairs["b"][batch])
        keep[batch] = minhash.estimated_jaccard(a, b) >= config.near_duplicates.threshold
    pairs = pairs[keep]
    folder.write(_pairs_name(part), work.array_bytes(pairs))
    return len(pairs)


def drop(folder: Folder, of: int) -> dict[str, int]:
    """Mark the documents that near-duplicates drop; how many, and how many are kept."""
    offsets = _offsets(folder)

    def blocks() -> Iterator[np.ndarray]:
        for group in range(len(offsets) - 1):
            yield folder.load(group_name(group, "facts"))

    parents = new_parents(int(offsets[-1]))
    for part in range(of):
        pairs = folder.load(_pairs_name(part))
        join(parents, pairs["a"], pairs["b"])
    flatten(parents)
    survivors = Survivors(parents, blocks)
    catalog = Catalog.load(folder)
    duplicates = dropped.marks(folder, dropped.DUPLICATE)

    def numbers(group: int) -> np.ndarray:
        """Of the documents whose rows are this group's."""
        first = catalog.numbers(catalog.group(group)[0]).start
        stop = catalog.numbers(catalog.group(group)[-1]).stop
        return first + np.flatnonzero(~duplicates[first:stop])

    def number(row: int) -> int:
        group = int(np.searchsorted(offsets, np.uint64(row), "right")) - 1
        return int(numbers(group)[row - int(offsets[group])])

    marks = np.zeros(catalog.documents, bool)
    for group in range(catalog.groups):
        rows = slice(int(offsets[group]), int(offsets[group + 1]))
        marks[numbers(group)] = survivors.dropped[rows]
    examples = survivors.examples(dropped.EXAMPLES)
    named = [(number(row), number(kept)) for row, kept in examples]
    dropped.write(folder, dropped.NEAR_DUPLICATE, marks, named)
    count = int(marks.sum())
    return {dropped.NEAR_DUPLICATE: count, "kept": int(offsets[-1]) - count}


def _offsets(folder: Folder) -> np.ndarray:
    """uint64 [groups + 1]: the first row of each group, and the number of all."""
    return _read_offsets(folder, folder.version(dropped.name(dropped.DUPLICATE)))


@lru_cache(1)
def _read_offsets(folder: Folder, version: str) -> np.ndarray:
    """Kept, since every element asks; `version` tells another run's documents."""
    counts = [0]
    for group in range(Catalog.load(folder).groups):
        path = group_name(group, "signatures")
        receipt = work.read_receipt(folder, path, check=False)
        assert receipt, f"{path} has no receipt"
        counts.append(receipt["documents"])
    return np.cumsum(counts, dtype=np.uint64)


def _gather_signatures(folder: Folder, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Signatures [rows, hashes] of documents in any order."""
    found: np.ndarray | None = None
    group_of = np.searchsorted(offsets, rows, "right") - 1
    order = np.argsort(group_of, kind="stable")
    groups, starts = np.unique(group_of[order], return_index=True)
    for group, at in zip(groups, np.split(order, starts[1:]), strict=True):
        array = folder.array(group_name(int(group), "signatures"))
        if found is None:
            found = np.empty((len(rows), array.shape[1]), array.dtype)
        found[at] = array[rows[at] - offsets[group]]
    assert found is not None, "no rows were asked for"
    return found


def group_name(group: int, kind: str) -> str:
    """File of the `bands`, `facts` or `signatures` of a group."""
    return f"{work.WORK}/signatures/{group:05}.{kind}.npy"


def _candidates_name(part: int) -> str:
    return f"{work.WORK}/candidates/{part:05}.npy"


def _bounds_name(part: int) -> str:
    return f"{work.WORK}/candidates/{part:05}.bounds.npy"


def _pairs_name(part: int) -> str:
    return f"{work.WORK}/pairs/{part:05}.npy"
