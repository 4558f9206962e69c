"""Corpora to documents: which files a source has, and what stands in each of them.

`READERS` is the one table of kinds. A reader has two halves: `find(source, chunk_bytes)` names the
files, or the parts of large ones, in a fixed order; `read(source, file)` yields the documents of
one of them, a `Skipped` for each that is none by its form, and a `Rejected` for each record that
can't be read. A file that is missing is a PipelineError, one that is cut off a BadFile.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import Source, source_name
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import docstrings, files, huggingface, mediawiki, parquet
from pipeline.sources.records import Chunk, Document, InputFile, Rejected, Skipped

Item = Document | Skipped | Rejected


class Reader(NamedTuple):
    """The two halves of a kind of source."""

    find: Callable[[Source, int], list[InputFile]]
    read: Callable[[Source, InputFile], Iterator[Item]]


def plan(sources: list[Source], chunk_bytes: int) -> list[Chunk]:
    """All input in chunks of about `chunk_bytes`: the same list for any number of workers."""
    chunks: list[Chunk] = []
    for number, source in enumerate(sources):
        together: list[InputFile] = []
        size = 0
        for file in READERS[source.kind].find(source, chunk_bytes):
            if together and size + file.bytes > chunk_bytes:
                chunks.append(Chunk(len(chunks), number, tuple(together)))
                together, size = [], 0
            together.append(file)
            size += file.bytes
        if together:
            chunks.append(Chunk(len(chunks), number, tuple(together)))
    return chunks


def read(source: Source, file: InputFile) -> Iterator[Item]:
    """The documents of one file, in its order.

    Raises PipelineError when the file is gone, not as it was planned, or bad. With `bad_files:
    skip` a bad one ends at the damage, and is told of as a Rejected.
    """
    try:
        if file.whole >= 0 and (size := files.size(file.path)) != file.whole:
            raise PipelineError(
                f"{file.path}: {size:,} bytes, but {file.whole:,} when this run began; "
                "start over with --overwrite"
            )
        yield from READERS[source.kind].read(source, file)
    except BadFile as error:
        if source.bad_files == "stop":
            raise BadFile(f"{error}, or go on without it: `bad_files: skip`") from error
        yield Rejected(file.path, f"bad file, read up to here: {error}")
    except OSError as error:
        raise PipelineError(f"{file.path}: can't be read ({error.strerror or error})") from error


def _find(source: Source, _: int) -> list[InputFile]:
    return files.matching(source)


def _read_jsonl(source: Source, file: InputFile) -> Iterator[Item]:
    for number, line in enumerate(files.lines(file.path), start=1):
        where = f"{file.path}:{number}"
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
            key = record.get(source.id_key, number)
            text = record[source.text_key]
            yield Document(f"{file.name}:{key}", text, source_name(source))


def _read_text(source: Source, file: InputFile) -> Iterator[Item]:
    name = source_name(source)
    if source.documents == "file":
        raw = b"".join(files.blocks(file.path))
        try:
            yield Document(file.name, codecs.decode(raw, "utf-8-sig"), name)
        except UnicodeDecodeError as error:
            yield Rejected(file.path, f"not UTF-8: {error}")
        return
    block: list[str] = []
    start = 1
    for number, line in enumerate(files.lines(file.path), start=1):
        try:
            text = codecs.decode(line, "utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield Rejected(f"{file.path}:{number}", f"not UTF-8: {error}")
            continue
        if source.documents == "line":
            if text.strip():
                yield Document(f"{file.name}:{number}", text, name)
        elif text.strip():
            start = start if block else number
            block.append(text)
        elif block:
            yield Document(f"{file.name}:{start}", "".join(block), name)
            block = []
    if block:
        yield Document(f"{file.name}:{start}", "".join(block), name)


def _find_python_docs(source: Source, _: int) -> list[InputFile]:
    return [InputFile(path, name, size, size) for path, name, size in docstrings.installed_files()]


def _read_python_docs(source: Source, file: InputFile) -> Iterator[Item]:
    raw = Path(file.path).read_bytes()
    library = docstrings.library_of(file.name)
    try:
        for name, text in docstrings.docstrings(raw, source.min_docstring_characters):
            yield Document(f"{file.name}:{name}", text, library)
    except (SyntaxError, ValueError, RecursionError) as error:
        yield Rejected(file.path, f"not Python: {error}")


READERS = {
    "text": Reader(_find, _read_text),
    "jsonl": Reader(_find, _read_jsonl),
    "parquet": Reader(parquet.find, parquet.read),
    "huggingface": Reader(huggingface.find, huggingface.read),
    "mediawiki": Reader(mediawiki.find, mediawiki.read),
    "python-docs": Reader(_find_python_docs, _read_python_docs),
}
