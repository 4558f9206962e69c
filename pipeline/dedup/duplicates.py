"""Documents with equal texts: of each such text, the one with the smallest document hash stays.

1. `records`: a record of each document of a piece, ordered by the hash of its text.
2. `match`: the records of one part of the hash space, of all pieces. All documents with one text
   meet in one part, so it is known at once which are dropped.
3. `drop`: marks for the documents of all parts.
"""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline.dedup.hash_space import rows_of_part
from pipeline.sources.records import Document
from pipeline.split import document_hash
from pipeline.store import dropped, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pipeline.store.pieces import hashes_name

RECORD = np.dtype(
    [
        *(("high", "u8"), ("low", "u8"), ("document", "u8", 2)),
        *(("ordinal", "u4"), ("characters", "u4")),
    ],
    align=True,
)
DROP = np.dtype([("hash", "u8"), ("number", "u8"), ("kept", "u8")])


def records(documents: list[Document]) -> np.ndarray:
    """RECORD [documents]: hashes of text and id, length; by the high half of the text's hash."""
    found = np.zeros(len(documents), RECORD)
    texts = np.frombuffer(b"".join(_text_hash(d.text) for d in documents), ">u8").reshape(-1, 2)
    found["high"] = texts[:, 0]
    found["low"] = texts[:, 1]
    ids = b"".join(document_hash(d.id) for d in documents)
    found["document"] = np.frombuffer(ids, ">u8").reshape(-1, 2)
    found["ordinal"] = np.arange(len(documents))
    found["characters"] = [len(d.text) for d in documents]
    return found[np.argsort(found["high"], kind="stable")]


def _text_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def match(folder: Folder, part: int, of: int) -> int:
    """Write which documents of one part of the hash space are dropped; their number."""
    catalog = Catalog.load(folder)
    found = [np.empty(0, RECORD)]
    numbers = [np.empty(0, np.uint64)]
    for piece in range(len(catalog)):
        array = folder.array(hashes_name(catalog.name(piece)))
        some = rows_of_part(array, "high", part, of)
        found.append(some)
        numbers.append(some["ordinal"] + catalog.first(piece))
    drops = equal_texts(np.concatenate(found), np.concatenate(numbers))
    folder.write(_drops_name(part), work.array_bytes(drops))
    return len(drops)


def equal_texts(found: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """DROP [n] by number: the documents that are dropped, their hash, and the one that stays.

    Args:
        found: RECORD [documents], in any order.
        numbers: uint64 [documents], of the documents of these records.
    """
    ids = found["document"]
    order = np.lexsort((numbers, ids[:, 1], ids[:, 0], found["low"], found["high"]))
    again = np.zeros(len(order), bool)  # the text of the record before
    again[1:] = True
    for column in ("high", "low"):
        values = found[column][order]
        again[1:] &= values[1:] == values[:-1]
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))
    at = np.flatnonzero(again)
    drops = np.empty(len(at), DROP)
    drops["hash"] = ids[order[at], 0]
    drops["number"] = numbers[order[at]]
    drops["kept"] = numbers[order[first[at]]]
    return drops[np.argsort(drops["number"])]


def drop(folder: Folder, of: int) -> dict[str, int]:
    """Mark what all parts drop; documents dropped and kept."""
    catalog = Catalog.load(folder)
    marks = np.zeros(catalog.documents, bool)
    examples = np.empty(0, DROP)
    for part in range(of):
        drops = folder.load(_drops_name(part))
        marks[drops["number"]] = True
        examples = np.concatenate([examples, drops])
        examples = examples[np.argsort(examples["hash"], kind="stable")[: dropped.EXAMPLES]]
    pairs = [(int(example["number"]), int(example["kept"])) for example in examples]
    dropped.write(folder, dropped.DUPLICATE, marks, pairs)
    count = int(marks.sum())
    return {dropped.DUPLICATE: count, "kept": len(marks) - count}


def _drops_name(part: int) -> str:
    return f"{work.WORK}/duplicates/{part:05}.npy"
