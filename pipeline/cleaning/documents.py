"""A chunk's files to clean documents: read, clean, judge, count; then in pieces onto the disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipeline.cleaning import filters
from pipeline.cleaning.clean import clean, in_parts
from pipeline.config import Config
from pipeline.credentials import public
from pipeline.dedup import decontaminate, duplicates
from pipeline.errors import PipelineError
from pipeline.sources import read
from pipeline.sources.records import Chunk, Document, Rejected, Removed, Skipped
from pipeline.split import document_hash, part_id
from pipeline.store import pieces, work
from pipeline.store.folder import Folder

EXAMPLES = 3  # of each drop reason, from each chunk
EXCERPT = 300  # characters
_NOT_OF_ONE_TEXT = (PipelineError, OSError, ImportError, MemoryError)  # it would be all of them


class _Tally:
    """What becomes of the documents of a chunk."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.contaminated: Counter[str] = Counter()
        self.rejected: list[str] = []
        self.examples: dict[str, list[list[str]]] = {}
        self.fruitless: list[Any] = []  # the first record of each file without a readable one

    def reject(self, record: Rejected) -> None:
        """Keep what is wrong with a record, as a line of JSON."""
        record = Rejected(public(record.where), public(record.reason))
        self.rejected.append(json.dumps(record._asdict(), ensure_ascii=False))

    def dropped(self, document: Document, text: str, reason: str) -> None:
        """Keep the examples with the smallest hashes: the same ones in any order."""
        kept = self.examples.setdefault(reason, [])
        kept.append([document_hash(document.id).hex(), document.id, text[:EXCERPT]])
        kept.sort()
        del kept[EXAMPLES:]


def clean_chunk(folder: Folder, chunk: Chunk, config: Config) -> dict[str, Any]:
    """Read and clean the files of a chunk; what was found, at once when that has been done.

    Counts are, by source: read, one of each drop reason, clean, characters, and what was cut or
    removed; `rejected` is apart, since a record that can't be read may not be one document.
    `fruitless` counts the files, or parts of files, of which no record could be read, and has the
    first record of one.
    """
    if found := pieces.read_chunk(folder, chunk.index):
        return found
    tally = _Tally()
    names: list[str] = []
    waiting: list[Document] = []
    size = 0
    for document in _kept(folder, chunk, config, tally):
        waiting.append(document)
        size += len(document.text)
        if size >= config.chunk_bytes:
            names.append(_write(folder, chunk, len(names), waiting))
            waiting, size = [], 0
    if waiting:
        names.append(_write(folder, chunk, len(names), waiting))
    if tally.rejected:
        lines = "".join(line + "\n" for line in tally.rejected)
        # Half a character of UTF-16, as file names may hold it, is written as JSON's escape of it.
        content = lines.encode(errors="backslashreplace")
        folder.write(pieces.rejected_name(chunk.index), content)
    found = {
        "counts": tally.counts,
        "contaminated": tally.contaminated,
        "rejected": len(tally.rejected),
        "fruitless": {"files": len(tally.fruitless), "first": (tally.fruitless or [None])[0]},
        "examples": tally.examples,
        "pieces": names,
    }
    work.write_json(folder, pieces.chunk_name(chunk.index), found)
    return found


def _kept(folder: Folder, chunk: Chunk, config: Config, tally: _Tally) -> Iterator[Document]:
    """The documents that pass every rule, long ones in parts; all others only counted."""
    source = config.sources[chunk.source]
    active = filters.load(config.cleaning)
    index = decontaminate.load(folder) if config.decontamination else None
    for file in chunk.files:
        rejected_before = len(tally.rejected)
        documents = 0
        for item in read(source, file):
            if isinstance(item, Rejected):
                tally.reject(item)
                continue
            count = tally.counts.setdefault(item.source, Counter())
            if isinstance(item, Removed):
                count[item.what] += item.number
                continue
            count["read"] += 1
            documents += 1
            if isinstance(item, Skipped):
                count[item.reason] += 1
                continue
            try:
                cleaned = clean(item.text, source.markup, config.cleaning)
                parts = in_parts(cleaned.text, config.cleaning.max_characters)
                reasons = [filters.drop_reason(text, active) for text in parts]
            except Exception as error:
                if isinstance(error, _NOT_OF_ONE_TEXT):
                    raise
                count["read"] -= 1
                tally.reject(Rejected(item.id, f"can't be cleaned ({error!r:.300})"))
                continue
            if cleaned.boilerplate_lines:
                count["boilerplate_lines"] += cleaned.boilerplate_lines
            if len(parts) > 1:
                count["cut"] += 1
                count["further_parts"] += len(parts) - 1
            for number, (text, reason) in enumerate(zip(parts, reasons, strict=True), start=1):
                document = Document(part_id(item.id, number), text, item.source)
                if reason is None and _left_out(item.id, source.weight):
                    reason = "not_sampled"
                elif reason is None and index is not None and config.decontamination:
                    tasks = decontaminate.contaminated_by(text, index, config.decontamination.ngram)
                    tally.contaminated.update(tasks)
                    reason = "contaminated" if tasks else None
                count[reason or "clean"] += 1
                if reason:
                    tally.dropped(document, text, reason)
                else:
                    count["characters"] += len(text)
                    yield document
        if not documents and len(tally.rejected) > rejected_before:
            tally.fruitless.append(json.loads(tally.rejected[rejected_before]))


def _left_out(document_id: str, weight: float) -> bool:
    """Whether a source of weight below 1 gives this document up, by a hash of its id."""
    if weight >= 1:
        return False
    lot = document_hash(f"weight:{document_id}")
    return int.from_bytes(lot[:8], "big") / 2**64 >= weight


def _write(folder: Folder, chunk: Chunk, number: int, documents: list[Document]) -> str:
    name = pieces.piece_name(chunk.index, number)
    pieces.write_piece(folder, name, documents, duplicates.records(documents))
    return name
