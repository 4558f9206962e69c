"""Exact deduplication of cleaned texts, as pure steps over partitions of the hash space.

A chunk gives each partition its (hash, id, ordinal) records; a partition keeps, of equal hashes,
the document with the smallest id, so the choice depends on neither order nor chunking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.documents import text_hash
from pipeline.sources import Document

PARTITIONS = 64

Record = tuple[bytes, str, int]  # hash of the text, document id, ordinal in the chunk


def partition_records(documents: Iterable[Document]) -> dict[int, list[Record]]:
    """Records of one chunk by partition; a partition without records has an empty list."""
    partitions: dict[int, list[Record]] = {p: [] for p in range(PARTITIONS)}
    for ordinal, document in enumerate(documents):
        digest = text_hash(document.text)
        partitions[digest[0] % PARTITIONS].append((digest, document.id, ordinal))
    return partitions


def duplicates(chunks: Iterable[tuple[int, list[Record]]]) -> Iterator[tuple[int, list[int], int]]:
    """(chunk, dropped ordinals, kept documents) of one partition, for every chunk given."""
    chunks = list(chunks)
    first: dict[bytes, tuple[str, int, int]] = {}
    for chunk, records in chunks:
        for digest, document_id, ordinal in records:
            candidate = (document_id, chunk, ordinal)
            first[digest] = min(first.get(digest, candidate), candidate)
    for chunk, records in chunks:
        dropped = [
            ordinal
            for digest, document_id, ordinal in records
            if first[digest] != (document_id, chunk, ordinal)
        ]
        yield chunk, dropped, len(records) - len(dropped)
