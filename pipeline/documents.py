"""The cleaned documents of a chunk, on disk: one JSON record a line, zstandard.

`.work/documents/00012.jsonl.zst` holds `{"id", "text", "source"}` in the order of the input; a
document's ordinal is its line. The receipt beside it holds the counts; `.rejected.jsonl` the
records that couldn't be read. `.work/duplicates/00012.json` lists the ordinals that fell to dedup.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from pipeline import work
from pipeline.clean import clean
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.sources import Chunk, Document, Rejected, read

Counts = dict[str, dict[str, int]]  # source -> step -> documents


def documents_path(folder: Path, chunk: int) -> Path:
    """File of a chunk's cleaned documents."""
    return folder / work.WORK / "documents" / f"{chunk:05}.jsonl.zst"


def rejected_path(folder: Path, chunk: int) -> Path:
    """File of a chunk's unreadable records; absent when there are none."""
    return documents_path(folder, chunk).with_name(f"{chunk:05}.rejected.jsonl")


def duplicates_path(folder: Path, chunk: int) -> Path:
    """File of the ordinals that deduplication drops from a chunk."""
    return folder / work.WORK / "duplicates" / f"{chunk:05}.json"


def clean_chunk(folder: Path, chunk: Chunk, config: Config) -> dict[str, Any]:
    """Read and clean the files of a chunk; the receipt, at once when it has been done before.

    The receipt's counts are, by source: read, one of each drop reason, clean; `rejected` is apart,
    since a record that can't be read may not be one document.
    """
    path = documents_path(folder, chunk.index)
    if receipt := work.read_receipt(path):
        return receipt
    source = config.sources[chunk.source]
    counts: dict[str, Counter[str]] = {}
    lines: list[str] = []
    rejected: list[str] = []
    for file in chunk.files:
        for item in read(source, file):
            if isinstance(item, Rejected):
                rejected.append(json.dumps(item._asdict(), ensure_ascii=False))
                continue
            count = counts.setdefault(item.source, Counter())
            count["read"] += 1
            text, reason = clean(item.text, source.markup, config.cleaning)
            count[reason or "clean"] += 1
            if reason is None:
                count["characters"] += len(text)
                record = {"id": item.id, "text": text, "source": item.source}
                lines.append(json.dumps(record, ensure_ascii=False))
    content = "".join(line + "\n" for line in lines).encode()
    if rejected:
        work.write_atomic(
            rejected_path(folder, chunk.index), "".join(r + "\n" for r in rejected).encode()
        )
    work.write_atomic(path, zstandard.compress(content, 3))
    return work.write_receipt(path, counts=counts, rejected=len(rejected), text_bytes=len(content))


def read_documents(folder: Path, chunk: int) -> Iterator[Document]:
    """All cleaned documents of a chunk, duplicates included, in order of their ordinals."""
    path = documents_path(folder, chunk)
    for line in zstandard.decompress(path.read_bytes()).split(b"\n")[:-1]:
        yield Document(**json.loads(line))


def kept_documents(folder: Path, chunk: int) -> Iterator[Document]:
    """The cleaned documents of a chunk that deduplication kept."""
    duplicates = work.load_json(duplicates_path(folder, chunk))
    if duplicates is None:
        raise PipelineError(
            f"{duplicates_path(folder, chunk)}: missing; run the same command again"
        )
    dropped = set(duplicates)
    for ordinal, document in enumerate(read_documents(folder, chunk)):
        if ordinal not in dropped:
            yield document


def text_hash(text: str) -> bytes:
    """16 bytes: equal for equal texts."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
