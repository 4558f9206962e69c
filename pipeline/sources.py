"""Corpora to documents: which files a source has, and what stands in each of them.

`READERS` is the one table of kinds. A reader has two halves: `find(source)` names the files, in a
fixed order; `read(source, file)` yields the documents of one of them, and a `Rejected` for each
record that can't be read. A file that is missing or cut off is a PipelineError.
"""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import zstandard

from pipeline import docstrings
from pipeline.config import Source, source_name
from pipeline.errors import PipelineError


class Document(NamedTuple):
    """One document: `id` is unique and stable, `source` is what it is counted under."""

    id: str
    text: str
    source: str
    meta: dict[str, str] = {}  # noqa: RUF012  (a NamedTuple default; nobody writes to it)


class Rejected(NamedTuple):
    """A record that can't be read: `where` names file and line or object."""

    where: str
    reason: str


@dataclass(frozen=True)
class InputFile:
    """A file as it was when the run was planned; `name` begins the ids of its documents."""

    path: str
    name: str
    bytes: int


@dataclass(frozen=True)
class Chunk:
    """Some files of one source, worked on together."""

    index: int
    source: int  # position in config.sources
    files: tuple[InputFile, ...] = field(repr=False)


class Reader(NamedTuple):
    """The two halves of a kind of source."""

    find: Callable[[Source], list[InputFile]]
    read: Callable[[Source, InputFile], Iterator[Document | Rejected]]


def plan(sources: list[Source], chunk_bytes: int) -> list[Chunk]:
    """All input in chunks of about `chunk_bytes`: the same list for any number of workers."""
    chunks: list[Chunk] = []
    for number, source in enumerate(sources):
        files: list[InputFile] = []
        size = 0
        for file in READERS[source.kind].find(source):
            if files and size + file.bytes > chunk_bytes:
                chunks.append(Chunk(len(chunks), number, tuple(files)))
                files, size = [], 0
            files.append(file)
            size += file.bytes
        if files:
            chunks.append(Chunk(len(chunks), number, tuple(files)))
    return chunks


def read(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """The documents of one file, in its order.

    Raises PipelineError when the file is gone, cut off, or not as it was planned.
    """
    try:
        size = Path(file.path).stat().st_size
        if size != file.bytes:
            raise PipelineError(
                f"{file.path}: {size:,} bytes, but {file.bytes:,} when this run began; "
                "start over with --overwrite"
            )
        yield from READERS[source.kind].read(source, file)
    except OSError as error:
        raise PipelineError(f"{file.path}: can't be read ({error.strerror or error})") from error


def _matching_files(source: Source) -> list[InputFile]:
    """Files of a text or jsonl source, sorted; ids begin with the source's and the file's name."""
    found: dict[str, InputFile] = {}
    for pattern in source.paths:
        # Path.glob takes no absolute pattern
        found_now = glob.iglob(pattern, recursive=True)  # noqa: PTH207
        matches = sorted(path for path in found_now if Path(path).is_file())
        if not matches:
            raise PipelineError(
                f"sources ({source_name(source)}): no file matches {pattern!r}; "
                "correct `paths`, or fetch the corpus first"
            )
        for path in matches:
            name = f"{source_name(source)}/{Path(path).name}"
            if (
                found.setdefault(name, InputFile(path, name, Path(path).stat().st_size)).path
                != path
            ):
                raise PipelineError(
                    f"sources ({source_name(source)}): {found[name].path} and {path} have the same "
                    "name, so their documents would have the same ids; put them in two sources"
                )
    return list(found.values())


def _text_blocks(path: str) -> Iterator[bytes]:
    """The decompressed bytes of a file, piece by piece; PipelineError when it is cut off."""
    try:
        with Path(path).open("rb") as raw:
            if path.endswith(".zst"):
                yield from _zstd_blocks(raw)
                return
            stream: IO[bytes] = raw
            if path.endswith((".gz", ".bz2")):
                stream = cast(IO[bytes], (gzip if path.endswith(".gz") else bz2).open(raw))
            while block := stream.read(1 << 20):
                yield block
    except (EOFError, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise PipelineError(f"{path}: cut off or damaged ({error}); fetch it again") from error
    except OSError as error:
        if error.errno is None:  # bz2 reports damage so
            raise PipelineError(f"{path}: damaged ({error}); fetch it again") from error
        raise


def _zstd_blocks(raw: IO[bytes]) -> Iterator[bytes]:
    """Like zstandard's stream reader, which takes a cut-off frame for the end of the file."""
    decoder = None
    while piece := raw.read(1 << 20):
        while piece:
            decoder = decoder or zstandard.ZstdDecompressor().decompressobj()
            yield decoder.decompress(piece)
            piece = decoder.unused_data
            if decoder.eof:
                decoder = None
    if decoder is not None:
        raise EOFError("the last zstd frame has no end")


def _lines(path: str) -> Iterator[bytes]:
    """Lines with their line feed, if they have one."""
    rest = b""
    for block in _text_blocks(path):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _read_jsonl(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    for number, line in enumerate(_lines(file.path), start=1):
        where = f"{file.path}:{number}"
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except ValueError as error:
            if not line.endswith(b"\n"):
                raise PipelineError(
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


def _read_text(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    name = source_name(source)
    if source.documents == "file":
        raw = b"".join(_text_blocks(file.path))
        try:
            yield Document(file.name, codecs.decode(raw, "utf-8-sig"), name)
        except UnicodeDecodeError as error:
            yield Rejected(file.path, f"not UTF-8: {error}")
        return
    block: list[str] = []
    start = 1
    for number, line in enumerate(_lines(file.path), start=1):
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


def _find_python_docs(source: Source) -> list[InputFile]:
    return [InputFile(*found) for found in docstrings.installed_files()]


def _read_python_docs(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    raw = Path(file.path).read_bytes()
    library = docstrings.library_of(file.name)
    try:
        for name, text in docstrings.docstrings(raw, source.min_docstring_characters):
            yield Document(f"{file.name}:{name}", text, library)
    except (SyntaxError, ValueError, RecursionError) as error:
        yield Rejected(file.path, f"not Python: {error}")


READERS = {
    "text": Reader(_matching_files, _read_text),
    "jsonl": Reader(_matching_files, _read_jsonl),
    "python-docs": Reader(_find_python_docs, _read_python_docs),
}
