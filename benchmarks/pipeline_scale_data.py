"""The documents of `benchmarks.pipeline_scale`: what the stages before would leave of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.config import Config, NearDuplicates, Shards, Source
from pipeline.dedup import duplicates, near_duplicates
from pipeline.dedup.components import FACTS
from pipeline.dedup.shingles import mixed
from pipeline.store import catalog, dropped, pieces, work
from pipeline.store.catalog import PIECE, Catalog
from pipeline.store.folder import Folder
from pipeline.tokens import encoded

PIECE_DOCUMENTS = 2700  # of 3 kB in the usual chunk_bytes
TOKENS = 8  # of a document: few, since it's the documents that cost
SHARDS = Shards(train=1000, valid=1)
NEAR = NearDuplicates()


def config(folder: Folder) -> Config:
    """Of a run with the usual near-duplicates."""
    source = Source(kind="text", paths=["none"])
    return Config(output=folder.url, sources=[source], near_duplicates=NEAR, shards=SHARDS)


def number_hash(numbers: np.ndarray, salt: int) -> np.ndarray:
    """uint64, a random number for each number."""
    return mixed(numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt << 32))


def texts(numbers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The text that each document has, a number, and whether it is changed a little."""
    lot = number_hash(numbers, 1) % np.uint64(1000)
    other = number_hash(numbers, 2) % np.uint64(count)
    equal, near, common = lot < 190, (lot >= 190) & (lot < 360), lot >= 990
    text = np.where(equal | near, other, numbers.astype(np.uint64))
    text[common] = number_hash(numbers[common], 3) % np.uint64(100)
    return text, near


def signatures(numbers: np.ndarray, count: int) -> np.ndarray:
    """uint32 [documents, hashes]: of the text, one in twenty or in seven of another if changed."""
    text, near = texts(numbers, count)
    hashes = np.arange(NEAR.bands * NEAR.rows, dtype=np.uint64)
    signed = number_hash(text[:, None] * np.uint64(128) + hashes, 4)
    own = number_hash(numbers[near, None] * np.uint64(128) + hashes, 5)
    changed = own % np.uint64(140) < np.where(numbers[near] % 2, 7, 20)[:, None].astype(np.uint64)
    signed[near] = np.where(changed, own, signed[near])
    return (signed >> np.uint64(32)).astype(np.uint32)


def prepare_texts(folder: Folder, count: int) -> None:
    """The catalog and the hashes of every piece."""
    firsts = np.arange(0, count, PIECE_DOCUMENTS)
    listed = np.zeros(len(firsts), PIECE)
    listed["chunk"] = np.arange(len(firsts))
    listed["first"] = firsts
    listed["documents"] = np.diff(firsts, append=count)
    folder.write(catalog.NAME, work.array_bytes(listed))
    every = Catalog(listed)
    for piece in range(len(every)):
        span = every.numbers(piece)
        numbers = np.arange(span.start, span.stop)
        text, near = texts(numbers, count)
        found = np.zeros(len(numbers), duplicates.RECORD)
        found["high"] = np.where(near, number_hash(numbers, 6), number_hash(text, 7))
        found["document"][:, 0] = number_hash(numbers, 8)
        found["ordinal"] = np.arange(len(numbers))
        found = found[np.argsort(found["high"])]
        folder.write(pieces.hashes_name(every.name(piece)), work.array_bytes(found))


def group_numbers(folder: Folder) -> Iterator[tuple[int, np.ndarray]]:
    """Every group with the numbers of its documents that are no duplicates."""
    every = Catalog.load(folder)
    marks = dropped.marks(folder, dropped.DUPLICATE)
    for group in range(every.groups):
        first, last = every.group(group)[0], every.group(group)[-1]
        span = slice(every.numbers(first).start, every.numbers(last).stop)
        yield group, span.start + np.flatnonzero(~marks[span])


def prepare_bands(folder: Folder, count: int) -> None:
    """What of `sign` finds candidates."""
    for group, numbers in group_numbers(folder):
        banded = near_duplicates.bands(signatures(numbers, count), NEAR)
        name = near_duplicates.group_name(group, "bands")
        folder.write(name, work.array_bytes(banded))
        receipt = work.receipt_name(near_duplicates.group_name(group, "signatures"))
        work.write_json(folder, receipt, {"documents": len(numbers)})


def prepare_signatures(folder: Folder, count: int) -> None:
    """What of `sign` compares them, in place of what has found them: the disk needn't hold both."""
    for group, numbers in group_numbers(folder):
        folder.delete(near_duplicates.group_name(group, "bands"))
        facts = np.zeros(len(numbers), FACTS)
        facts["hash"][:, 0] = number_hash(numbers, 8)
        facts["characters"] = 2000 + number_hash(numbers, 9) % np.uint64(2000)
        signed = signatures(numbers, count).T.ravel()
        for kind, array in {"facts": facts, "signatures": signed}.items():
            folder.write(near_duplicates.group_name(group, kind), work.array_bytes(array))


def prepare_tokens(folder: Folder, count: int) -> None:
    """What `tokenize_group` would leave, in place of the signatures."""
    for group, numbers in group_numbers(folder):
        folder.delete(near_duplicates.group_name(group, "signatures"))
        index = np.zeros(len(numbers), encoded.INDEX)
        index["hash"][:, 0] = np.sort(number_hash(numbers, 8))
        index["length"] = TOKENS
        folder.write(encoded.index_name(group), work.array_bytes(index))
        tokens = np.zeros(TOKENS * len(numbers), np.uint16)
        folder.write(encoded.tokens_name(group), work.array_bytes(tokens))
