"""Files of text by lines: cut into parts, and decoded.

A record in a part is named by the part's first byte and the line from there: `FILE@BYTE:LINE`.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, pairwise
from typing import NamedTuple

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import content, files
from pipeline.sources.records import InputFile, Rejected

Begins = Callable[[bytes, bytes], bool]  # whether a document begins between two lines
_REMEDY = "set `encoding` of the source"
_NOT_ITS_ENCODING = 10  # undecodable lines, if they are more than the decodable non-ASCII ones


class Line(NamedTuple):
    """A line with its line feed, and its number in its part of the file, from 1."""

    number: int
    text: str


def in_parts(source: Source, found: list[InputFile], limit: int, begins: Begins) -> list[InputFile]:
    """The files; plain ones of more than `limit` bytes in even parts of about that."""
    parts: list[InputFile] = []
    for file in found:
        is_whole = (
            file.bytes <= limit
            or must_be_whole(source, files.head(file.path))
            or not files.has_ranges(file.path)
        )
        parts += [file] if is_whole else _parts(file, limit, begins)
    return parts


def must_be_whole(source: Source, head: bytes) -> bool:
    """Whether a file that begins so can be read from its start only.

    It is compressed, or its line feeds aren't the byte at which files are cut.
    """
    encoding = content.marked_encoding(head) or source.encoding
    is_compressed = content.decoder(head) is not None
    return is_compressed or not _has_line_feeds(encoding) or content.has_returns_alone(head)


def _parts(file: InputFile, limit: int, begins: Begins) -> list[InputFile]:
    count = -(-file.bytes // limit)
    bounds = [0]
    for part in range(1, count):
        at = part * file.bytes // count
        if at > bounds[-1]:
            bounds.append(_document_start(file.path, at, begins))
    bounds = [*(start for start in bounds if start < file.bytes), file.bytes]
    if len(bounds) <= 2:
        return [file]
    return [
        replace(file, bytes=stop - start, start=start, stop=stop)
        for start, stop in pairwise(bounds)
    ]


def _document_start(path: str, at: int, begins: Begins) -> int:
    """The first byte from `at` on that begins a document.

    The line that `at` is in is passed over, since it may have begun before.
    """
    following = files.lines(path, at)
    before = next(following, b"")
    at += len(before)
    before = before.strip() or b"-"  # if it is blank, then perhaps by being cut
    for line in following:
        if begins(before, line):
            break
        at += len(line)
        before = line
    return at


def place(file: InputFile, number: int) -> str:
    """Where a line of a part stands in its file."""
    return f"@{file.start}:{number}" if file.start else f":{number}"


class Content(NamedTuple):
    """Blocks of bytes, and their encoding, in which a line feed is a single byte."""

    encoding: str
    blocks: Iterator[bytes]


def content_of(source: Source, file: InputFile) -> Content:
    """What is in a file or a part: a byte order mark counts more than the source's `encoding`."""
    found = files.blocks(file.path, file.start, file.stop)
    first = next(found, b"")
    mark = None if file.start else content.marked_encoding(first)
    encoding = mark or source.encoding
    if mark == "utf-8":
        first = first.removeprefix(codecs.BOM_UTF8)
    found = chain([first], found)
    if not _has_line_feeds(encoding):
        found = _transcoded(found, encoding, file.path)
        first = next(found, b"")
        return Content("utf-8", _with_line_feeds(first, chain([first], found)))
    head = first[: content.HEAD_BYTES]
    if content.is_binary(head):
        likely = content.likely_encoding(head)
        raise BadFile(
            f"{file.path}: binary data, or {likely[:6].upper()} without a byte order mark: for "
            f"that, set `encoding: {likely}` of the source"
        )
    return Content(encoding, found if file.start else _with_line_feeds(first, found))


def _with_line_feeds(first: bytes, found: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks; line feeds for the carriage returns that end lines in files of old Macs."""
    if content.has_returns_alone(first):
        return (block.replace(b"\r", b"\n") for block in found)
    return found


def read(source: Source, file: InputFile) -> Iterator[Line | Rejected]:
    """`decoded` lines of a file or a part."""
    return decoded(content_of(source, file), file)


def decoded(found: Content, file: InputFile) -> Iterator[Line | Rejected]:
    """The lines, decoded; a Rejected for each that isn't of this encoding.

    Raises BadFile when most of what isn't ASCII can't be decoded: the file has another encoding.
    """
    at = file.start
    undecodable = decodable = 0
    for number, raw in enumerate(files.split_lines(found.blocks), start=1):
        try:
            text = raw.decode(found.encoding)
        except UnicodeDecodeError as error:
            where = file.path + place(file, number)
            byte = f"byte {at + error.start + 1:,} is 0x{raw[error.start]:02x}"
            reason = f"not {found.encoding}: {byte}"
            if error.reason == "unexpected end of data" and not raw.endswith(b"\n"):
                raise BadFile(f"{where}: cut off within a character; fetch it again") from error
            undecodable += 1
            if undecodable >= _NOT_ITS_ENCODING and undecodable > decodable:
                raise BadFile(
                    f"{where}: {reason}, as in {undecodable - 1} lines before; {_REMEDY} to what "
                    "the file has (cp1252, latin-1, …)"
                ) from error
            yield Rejected(where, f"{reason}; {_REMEDY} if all lines have another")
        else:
            decodable += not text.isascii()
            yield Line(number, text)
        at += len(raw)


def utf8_blocks(found: Content, file: InputFile) -> Iterator[bytes]:
    """The content in UTF-8. Raises BadFile when it can't be decoded."""
    if found.encoding == "utf-8":
        return found.blocks
    return _transcoded(found.blocks, found.encoding, file.path)


def _has_line_feeds(encoding: str) -> bool:
    """Whether a line feed is ASCII's byte: not so in UTF-16, UTF-32 and EBCDIC."""
    try:
        return b"\n".decode(encoding) == "\n"
    except UnicodeDecodeError:
        return False


def _transcoded(found: Iterator[bytes], encoding: str, path: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in found:
            yield decoder.decode(block).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeDecodeError as error:
        if error.reason in ("truncated data", "unexpected end of data"):
            raise BadFile(f"{path}: cut off within a character; fetch it again") from error
        raise BadFile(
            f"{path}: not {encoding} ({error}); {_REMEDY} to what the file has"
        ) from error
