"""Corpora to documents: which files a source has, and what stands in each of them.

`READERS` is the one table of kinds. A reader has two halves: `find(source, chunk_bytes)` names the
files, or the parts of large ones, in a fixed order; `read(source, file)` yields the documents of
one of them, a `Skipped` for each that is none by its form, a `Removed` for passages that it takes
out of a text, and a `Rejected` for each record that can't be read. A file that is missing is a
PipelineError, one that is cut off a BadFile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.config import Source
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import docstrings, files, huggingface, lines, mediawiki, parquet
from pipeline.sources.records import Chunk, Document, InputFile, Rejected, Removed, Skipped

Item = Document | Skipped | Removed | Rejected


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
    "text": Reader(lines.find, lines.read_text),
    "jsonl": Reader(lines.find, lines.read_jsonl),
    "parquet": Reader(parquet.find, parquet.read),
    "huggingface": Reader(huggingface.find, huggingface.read),
    "mediawiki": Reader(mediawiki.find, mediawiki.read),
    "python-docs": Reader(_find_python_docs, _read_python_docs),
}
