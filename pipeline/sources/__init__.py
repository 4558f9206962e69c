"""Corpora to documents: which files a source has, and what stands in each of them.

A kind of source is a module here, of the same name (`python-docs`: `python_docs`), and a name in
`Source.kind`. It has two functions: `find(source, chunk_bytes)` names the files, or the parts of
large ones, in a fixed order; `read(source, file)` yields the documents of one of them, a `Skipped`
for each that is none by its form, a `Removed` for passages that it takes out of a text, and a
`Rejected` for each record that can't be read. A file that is missing is a PipelineError, one that
is cut off a BadFile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Protocol, cast

from pipeline.config import Source
from pipeline.credentials import public, restored
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import files
from pipeline.sources.records import Chunk, Document, InputFile, Rejected, Removed, Skipped

Item = Document | Skipped | Removed | Rejected


class Reader(Protocol):
    """What the module of a kind of source has."""

    def find(self, source: Source, chunk_bytes: int) -> list[InputFile]:
        """The files, or parts of them, in a fixed order."""

    def read(self, source: Source, file: InputFile) -> Iterator[Item]:
        """The documents of one of them, in its order."""


def reader(kind: str) -> Reader:
    """The module of a kind, imported only where there is such a source."""
    return cast(Reader, import_module(f"pipeline.sources.{kind.replace('-', '_')}"))


def plan(sources: list[Source], chunk_bytes: int) -> list[Chunk]:
    """All input in chunks of about `chunk_bytes`: the same list for any number of workers."""
    chunks: list[Chunk] = []
    for number, source in enumerate(sources):
        together: list[InputFile] = []
        size = 0
        for file in _found(source, chunk_bytes):
            if together and size + file.bytes > chunk_bytes:
                chunks.append(Chunk(len(chunks), number, tuple(together)))
                together, size = [], 0
            together.append(file)
            size += file.bytes
        if together:
            chunks.append(Chunk(len(chunks), number, tuple(together)))
    return chunks


def _found(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The files of a source; the credentials in their URLs stay with it, and are in no plan."""
    try:
        found = reader(source.kind).find(source, chunk_bytes)
    except OSError as error:
        where = error.filename or "a file"
        raise PipelineError(
            f"sources ({source.label}): {where}: can't be read ({error.strerror or error})"
        ) from error
    except Exception as error:
        urls = [path for path in source.paths if files.is_url(path)]
        if isinstance(error, PipelineError) or not urls:
            raise
        raise files.unreachable(f"sources ({source.label}): {', '.join(urls)}", error) from error
    return [replace(file, path=public(file.path)) for file in found]


def read(source: Source, file: InputFile) -> Iterator[Item]:
    """The documents of one file, in its order.

    Raises PipelineError when the file is missing, not as it was planned, or bad. With `bad_files:
    skip` a bad one ends at the damage, and is told of as a Rejected.
    """
    file = replace(file, path=restored(file.path, source.paths))
    try:
        if file.whole >= 0 and (size := files.size(file.path)) != file.whole:
            raise PipelineError(
                f"{file.path}: {size:,} bytes, but {file.whole:,} when this run began; "
                "start over with --overwrite"
            )
        yield from reader(source.kind).read(source, file)
    except BadFile as error:
        if source.bad_files == "stop":
            raise BadFile(f"{error}, or go on without it: `bad_files: skip`") from error
        yield Rejected(file.path, f"bad file, read up to here: {error}")
    except OSError as error:
        raise PipelineError(f"{file.path}: can't be read ({error.strerror or error})") from error
    except Exception as error:
        if isinstance(error, PipelineError) or not files.is_url(file.path):
            raise
        raise files.unreachable(file.path, error) from error
