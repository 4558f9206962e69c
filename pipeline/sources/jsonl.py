"""JSON lines; also what is called so and isn't: one array, and objects over several lines."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import files, lines
from pipeline.sources.naming import Ids
from pipeline.sources.records import Document, InputFile, Rejected, as_document

_SUFFIXES = (".jsonl", ".json", ".ndjson")
_NO_JSON = 10  # records, if they are more than those that are JSON: the file is something else


class Record(NamedTuple):
    """A JSON value, and the number of its line, or in its array."""

    number: int
    content: Any


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The files; large plain ones with a record a line in parts."""
    parts: list[InputFile] = []
    for file in files.matching(source, _SUFFIXES):
        if file.bytes > chunk_bytes and _prefix(files.head(file.path)) is not None:
            parts.append(file)
        else:
            parts += lines.in_parts(source, [file], chunk_bytes, lambda before, line: True)
    return parts


def read(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """A document for each object with a text under `text_key`."""
    ids = Ids(file.name)
    for record in records(source, file):
        if isinstance(record, Rejected):
            yield record
        else:
            place = lines.place(file, record.number)
            where = file.path + place
            yield as_document(source, ids, record.content, place=place, where=where)


def records(source: Source, file: InputFile) -> Iterator[Record | Rejected]:
    """The values of a file or a part, of any JSON type."""
    found = lines.content_of(source, file)
    first = next(found.blocks, b"")
    found = found._replace(blocks=chain([first], found.blocks))
    prefix = None if file.start else _prefix(first)
    if prefix is None:
        return _lines(found, file)
    return _values(lines.utf8_blocks(found, file), file, prefix)


def _prefix(head: bytes) -> str | None:
    """Where the records are, in ijson's notation; None where there is one in each line."""
    head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"["):
        return "item"
    first, newline, _ = head.partition(b"\n")
    try:
        json.loads(first)
    except json.JSONDecodeError as error:
        if newline and first.startswith(b"{") and error.pos >= len(error.doc.rstrip()):
            return ""  # an object that continues in the next line
    except (ValueError, RecursionError):
        return None
    return None


def _lines(found: lines.Content, file: InputFile) -> Iterator[Record | Rejected]:
    good = bad = 0
    for line in lines.decoded(found, file):
        if isinstance(line, Rejected):
            yield line
            continue
        if not line.text.strip():
            continue
        where = file.path + lines.place(file, line.number)
        try:
            record = json.loads(line.text)
        except (ValueError, RecursionError) as error:
            bad += 1
            if isinstance(error, json.JSONDecodeError) and not line.text.endswith("\n"):
                raise BadFile(
                    f"{where}: cut off in the last record ({error}); fetch it again"
                ) from error
            if bad >= _NO_JSON and bad > good:
                raise BadFile(
                    f"{where}: not JSON lines ({error}), nor were {bad - 1} lines before; check "
                    "`kind` of the source"
                ) from error
            yield Rejected(where, f"not JSON: {error}")
        else:
            good += 1
            yield Record(line.number, record)


def _values(found: Iterator[bytes], file: InputFile, prefix: str) -> Iterator[Record]:
    """The values of an array, or one after the other; only one is in memory at a time."""
    import ijson  # other files need none

    number = 0
    try:
        stream = files.stream(found)
        for value in ijson.items(stream, prefix, use_float=True, multiple_values=True):
            number += 1
            yield Record(number, value)
    except ijson.JSONError as error:
        raise BadFile(
            f"{file.path}: damaged or cut off behind record {number:,} ({error}); fetch it again"
        ) from error
