"""Text files and JSON lines; large plain ones in parts that begin and end with a document.

A record in a part is named by the part's first byte and the line from there: `FILE@BYTE:LINE`.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import files
from pipeline.sources.records import Document, InputFile, Rejected


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The files; plain ones of more than `chunk_bytes` in even parts of about that."""
    in_parts = source.kind == "jsonl" or source.documents != "file"
    parts: list[InputFile] = []
    for file in files.matching(source):
        if in_parts and not files.is_compressed(file.path):
            parts += _parts(source, file, chunk_bytes)
        else:
            parts.append(file)
    return parts


def _parts(source: Source, file: InputFile, chunk_bytes: int) -> list[InputFile]:
    by_blocks = source.kind == "text" and source.documents == "blank-lines"
    count = -(-file.bytes // chunk_bytes)
    bounds = [0]
    for part in range(1, count):
        at = part * file.bytes // count
        if at > bounds[-1]:
            bounds.append(_document_start(file.path, at, by_blocks))
    bounds = [*(start for start in bounds if start < file.bytes), file.bytes]
    if len(bounds) <= 2:
        return [file]
    return [
        replace(file, bytes=stop - start, start=start, stop=stop)
        for start, stop in pairwise(bounds)
    ]


def _document_start(path: str, at: int, by_blocks: bool) -> int:
    """The first byte from `at` on that begins a line, and (`by_blocks`) stands behind a blank one.

    The line that `at` is in is passed over, since it may have begun before.
    """
    for number, line in enumerate(files.lines(path, at)):
        at += len(line)
        if (number and not line.strip()) or not by_blocks:
            break
    return at


def _place(name: str, file: InputFile) -> str:
    return f"{name}@{file.start}" if file.start else name


def read_jsonl(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """A document for each object with a text under `text_key`."""
    place = _place(file.path, file)
    for number, line in enumerate(files.lines(file.path, file.start, file.stop), start=1):
        where = f"{place}:{number}"
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except ValueError as error:
            if not line.endswith(b"\n"):
                raise BadFile(
                    f"{where}: cut off in the last record ({error}); fetch it again"
                ) from error
            yield Rejected(where, f"not JSON: {error}")
            continue
        if not isinstance(record, dict):
            yield Rejected(where, f"a JSON {type(record).__name__}, expected an object")
        elif not isinstance(record.get(source.text_key), str):
            keys = ", ".join(sorted(record)[:8])
            yield Rejected(where, f"no text under {source.text_key!r}; it has {keys}")
        else:
            own = record.get(source.id_key)
            key = _place(file.name, file) + f":{number}" if own is None else f"{file.name}:{own}"
            yield Document(key, record[source.text_key], source.label)


def read_text(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """A document for the file, for each line, or for each block between blank lines."""
    name, place = _place(file.name, file), _place(file.path, file)
    if source.documents == "file":
        raw = b"".join(files.blocks(file.path))
        try:
            yield Document(name, codecs.decode(raw, "utf-8-sig"), source.label)
        except UnicodeDecodeError as error:
            yield Rejected(place, f"not UTF-8: {error}")
        return
    block: list[str] = []
    begin = 1
    for number, line in enumerate(files.lines(file.path, file.start, file.stop), start=1):
        first = number == 1 and not file.start
        try:
            text = codecs.decode(line, "utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError as error:
            yield Rejected(f"{place}:{number}", f"not UTF-8: {error}")
            continue
        if source.documents == "line":
            if text.strip():
                yield Document(f"{name}:{number}", text, source.label)
        elif text.strip():
            begin = begin if block else number
            block.append(text)
        elif block:
            yield Document(f"{name}:{begin}", "".join(block), source.label)
            block = []
    if block:
        yield Document(f"{name}:{begin}", "".join(block), source.label)
