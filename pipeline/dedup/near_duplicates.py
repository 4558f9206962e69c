"""Documents with nearly equal texts, among those whose texts differ.

1. `sign`: MinHash signatures of the documents of one group of pieces, a record of each of their
   LSH bands, and the facts that `drop` chooses by.
2. `match`: the bands of one part of the hash space, of all groups, give candidates: pairs of
   documents that agree in a band.
3. `list_candidates`: those whose first documents are in one range, each once though they may agree
   in many bands.
4. `compare`: in how many of some of the hashes each pair of candidates agrees. Signatures lie hash
   by hash, so that all parts together read them once, from begin to end.
5. `drop`: candidates that agree in at least `threshold` of all hashes make connected components; of
   each the longest text stays.

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
_HASH = np.dtype(np.uint32)


def sign(folder: Folder, config: Config, group: int) -> dict[str, Any]:
    """Sign the documents of a group; the receipt, at once when it has been done before."""
    settings = config.near_duplicates
    assert settings
    paths = {kind: group_name(group, kind) for kind in ("bands", "facts", "signatures")}
    if all(receipts := [work.read_receipt(folder, path) for path in paths.values()]):
        return cast(dict[str, Any], receipts[-1])
    catalog = Catalog.load(folder)
    marks = dropped.marks(folder, dropped.DUPLICATE)
    signed = [np.empty((0, settings.bands * settings.rows), _HASH)]
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
        "signatures": signatures.T.ravel(),
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


def list_candidates(folder: Folder, part: int, of: int) -> int:
    """Write the candidates whose first documents are in one part of all rows; their number."""
    found = [np.empty(0, PAIR)]
    for matched in range(of):
        start, stop = folder.load(_bounds_name(matched))[part : part + 2]
        found.append(folder.rows(_candidates_name(matched), slice(start, stop), PAIR))
    together = np.concatenate(found)
    pairs = _distinct(together["a"], together["b"])
    folder.write(_pairs_name(part), work.array_bytes(pairs))
    return len(pairs)


def hash_parts(config: Config, of: int) -> int:
    """In how many parts `compare` takes the hashes of a signature, where `match` has `of`."""
    return min(of, _hashes(config))


def compare(folder: Folder, config: Config, part: int, of: int) -> int:
    """Write in how many hashes of one part each pair of candidates agrees; how many pairs.

    It holds these hashes of all documents: with one hash a part, 4 bytes a document.
    """
    offsets = _offsets(folder)
    parts = hash_parts(config, of)
    first = part * _hashes(config) // parts
    last = (part + 1) * _hashes(config) // parts
    hashes = np.empty((last - first, int(offsets[-1])), _HASH)
    for group, start in enumerate(offsets[:-1].tolist()):
        documents = int(offsets[group + 1]) - start
        rows = slice(first * documents, last * documents)
        some = folder.rows(group_name(group, "signatures"), rows, _HASH)
        hashes[:, start : start + documents] = some.reshape(last - first, documents)
    agreements = [np.empty(0, _agreements_type(config, of))]
    for listed in range(of):
        pairs = folder.load(_pairs_name(listed))
        a = pairs["a"].astype(np.intp)
        b = pairs["b"].astype(np.intp)
        count = np.zeros(len(pairs), agreements[0].dtype)
        for each in hashes:
            count += each[a] == each[b]
        agreements.append(count)
    together = np.concatenate(agreements)
    folder.write(_agreements_name(part), work.array_bytes(together))
    return len(together)


def _similar(folder: Folder, config: Config, of: int) -> Iterator[np.ndarray]:
    """PAIR [n], in blocks: the candidates that agree in at least `threshold` of all hashes."""
    assert config.near_duplicates
    start = 0
    waiting: list[np.ndarray] = []
    for listed in range(of):
        waiting.append(folder.load(_pairs_name(listed)))
        if listed < of - 1 and sum(map(len, waiting)) < hash_space.RECORDS:
            continue
        pairs = np.concatenate(waiting)
        waiting = []
        agreements = np.zeros(len(pairs), np.uint32)
        for part in range(hash_parts(config, of)):
            rows = slice(start, start + len(pairs))
            agreements += folder.rows(_agreements_name(part), rows, _agreements_type(config, of))
        start += len(pairs)
        yield pairs[agreements / _hashes(config) >= config.near_duplicates.threshold]


def drop(folder: Folder, config: Config, of: int) -> dict[str, int]:
    """Mark the documents that near-duplicates drop; how many, and how many are kept."""
    offsets = _offsets(folder)

    def blocks() -> Iterator[np.ndarray]:
        for group in range(len(offsets) - 1):
            yield folder.load(group_name(group, "facts"))

    parents = new_parents(int(offsets[-1]))
    for pairs in _similar(folder, config, of):
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


def _hashes(config: Config) -> int:
    """Of a signature."""
    assert config.near_duplicates
    return config.near_duplicates.bands * config.near_duplicates.rows


def _agreements_type(config: Config, of: int) -> np.dtype:
    """Of the counts of one part of `compare`."""
    return np.min_scalar_type(-(-_hashes(config) // hash_parts(config, of)))


def group_name(group: int, kind: str) -> str:
    """File of the `bands`, `facts` or `signatures` of a group."""
    return f"{work.WORK}/signatures/{group:05}.{kind}.npy"


def _candidates_name(part: int) -> str:
    return f"{work.WORK}/candidates/{part:05}.npy"


def _bounds_name(part: int) -> str:
    return f"{work.WORK}/candidates/{part:05}.bounds.npy"


def _pairs_name(part: int) -> str:
    return f"{work.WORK}/pairs/{part:05}.npy"


def _agreements_name(part: int) -> str:
    return f"{work.WORK}/agreements/{part:05}.npy"
