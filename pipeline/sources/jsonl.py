"""JSON lines; also what is called so and isn't: one array, objects over several lines or in one."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import files, json_values, lines
from pipeline.sources.naming import Ids
from pipeline.sources.records import Document, InputFile, Rejected, as_document

_SUFFIXES = (".jsonl", ".json", ".ndjson")
_NO_JSON = 10  # records, if they are more than those that are JSON: the file is something else


class Record(NamedTuple):
    """A JSON value, and the number of its line, or its number in the file."""

    number: int
    content: Any


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The files; large plain ones with a record a line in parts."""
    parts: list[InputFile] = []
    for file in files.matching(source, _SUFFIXES):
        if file.bytes > chunk_bytes and not _is_by_lines(files.head(file.path)):
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
    """The values of a file or a part, of any JSON type. Raises BadFile when most are no JSON."""
    found = lines.content_of(source, file)
    first = next(found.blocks, b"")
    found = found._replace(blocks=chain([first], found.blocks))
    by_lines = bool(file.start) or _is_by_lines(first)
    texts = lines.decoded(found, file) if by_lines else _values(found, file)
    good = bad = 0
    for text in texts:
        if isinstance(text, Rejected):
            yield text
            continue
        if not text.text.strip():
            continue
        where = file.path + lines.place(file, text.number)
        try:
            record = json.loads(text.text)
        except (ValueError, RecursionError) as error:
            bad += 1
            if by_lines and _is_cut_off(text.text, error):
                raise BadFile(
                    f"{where}: cut off in the last record ({error}); fetch it again"
                ) from error
            if bad >= _NO_JSON and bad > good:
                raise BadFile(
                    f"{where}: not JSON ({error}), nor were {bad - 1} records before; check "
                    "`kind` of the source"
                ) from error
            yield Rejected(where, f"not JSON: {error}")
        else:
            good += 1
            yield Record(text.number, record)


def _is_by_lines(head: bytes) -> bool:
    """Whether a file that begins so has a record in each line.

    Else it is an array, or objects that go on in the next line or stand beside each other.
    """
    head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not head.startswith(b"{"):
        return not head.startswith(b"[")
    first, newline, _ = head.partition(b"\n")
    text = first.decode(errors="replace")  # it may end within a character
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        return not (newline and error.pos >= len(text.rstrip()))
    except (ValueError, RecursionError):
        return True
    return not text[end:].lstrip().startswith(("{", ","))


def _is_cut_off(line: str, error: Exception) -> bool:
    """Whether a line ends too early: it has no line feed, and nothing behind its value."""
    is_whole = line.endswith("\n") or not isinstance(error, json.JSONDecodeError)
    return not is_whole and not str(error).startswith("Extra data")


def _values(found: lines.Content, file: InputFile) -> Iterator[lines.Line | Rejected]:
    """The texts of values that aren't told apart by lines, with their numbers in the file."""
    number = 0
    try:
        values = json_values.split(lines.utf8_blocks(found, file))
        for number, raw in enumerate(values, start=1):
            try:
                yield lines.Line(number, raw.decode())
            except UnicodeDecodeError as error:
                where = file.path + lines.place(file, number)
                byte = f"byte {error.start + 1:,} of the record is 0x{raw[error.start]:02x}"
                yield Rejected(where, f"not utf-8: {byte}")
    except EOFError as error:
        raise BadFile(
            f"{file.path}: damaged or cut off behind record {number:,} ({error}); fetch it again"
        ) from error
