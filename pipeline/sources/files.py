"""Input files wherever they lie: local paths and globs, or URLs through Beam's filesystems.

`blocks` and `lines` decompress .gz, .bz2 and .zst and tell a file that is cut off from one that
ends: `BadFile`.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, cast

import zstandard

from pipeline.config import Source
from pipeline.errors import BadFile, PipelineError
from pipeline.sources.records import InputFile

_BLOCK_BYTES = 1 << 20


def matching(source: Source) -> list[InputFile]:
    """The files of a source, in the order of its paths, each pattern's sorted by name.

    Document ids begin with the source's and the file's name. Raises PipelineError when a pattern
    matches nothing, or two files have one name.
    """
    found: dict[str, InputFile] = {}
    for pattern in source.paths:
        for path, size in match(pattern, f"sources ({source.label})"):
            name = f"{source.label}/{path.rsplit('/', 1)[-1]}"
            other = found.setdefault(name, InputFile(path, name, size, size))
            if other.path != path:
                raise PipelineError(
                    f"sources ({source.label}): {other.path} and {path} have the same "
                    "name, so their documents would have the same ids; put them in two sources"
                )
    return list(found.values())


def size(path: str) -> int:
    """Bytes of a file. Raises OSError when there is none."""
    if _is_url(path):
        return _graph().match_url(path)[0][1]
    return Path(path).stat().st_size


def open_raw(path: str) -> IO[bytes]:
    """The bytes as they lie there, seekable, never decompressed."""
    if _is_url(path):
        return _graph().open_url(path)
    return Path(path).open("rb")


def is_compressed(path: str) -> bool:
    """Whether a file is, by its name; it can then be read from its start only."""
    return path.endswith((".gz", ".bz2", ".zst"))


def blocks(path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The decompressed bytes of a file, piece by piece. Raises BadFile when it is cut off.

    Of a plain file also those from `start` to `stop` alone.
    """
    try:
        with open_raw(path) as raw:
            if path.endswith(".zst"):
                yield from _zstd_blocks(raw)
                return
            stream: IO[bytes] = raw
            if path.endswith((".gz", ".bz2")):
                stream = cast(IO[bytes], (gzip if path.endswith(".gz") else bz2).open(raw))
            elif start:
                stream.seek(start)
            left = None if stop is None else stop - start
            while block := stream.read(_BLOCK_BYTES if left is None else min(_BLOCK_BYTES, left)):
                left = None if left is None else left - len(block)
                yield block
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise BadFile(f"{path}: cut off or damaged ({error}); fetch it again") from error
    except OSError as error:
        if error.errno is None:  # bz2 reports damage so
            raise BadFile(f"{path}: damaged ({error}); fetch it again") from error
        raise


def lines(path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """Lines with their line feed, if they have one; of a plain file from `start` to `stop`."""
    rest = b""
    for block in blocks(path, start, stop):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def _zstd_blocks(raw: IO[bytes]) -> Iterator[bytes]:
    """Like zstandard's stream reader, which takes a cut-off frame for the end of the file."""
    decoder = None
    while piece := raw.read(_BLOCK_BYTES // 4):
        while piece:
            decoder = decoder or zstandard.ZstdDecompressor().decompressobj()
            yield decoder.decompress(piece)
            piece = decoder.unused_data
            if decoder.eof:
                decoder = None
    if decoder is not None:
        raise EOFError("the last zstd frame has no end")


def match(pattern: str, key: str) -> list[tuple[str, int]]:
    """(path, bytes) of what a pattern names, sorted. PipelineError naming the key when nothing."""
    matches = sorted(_match(pattern))
    if not matches:
        raise PipelineError(
            f"{key}: no file matches {pattern!r}; correct `paths`, or fetch the corpus first"
        )
    return matches


def _match(pattern: str) -> Iterator[tuple[str, int]]:
    if _is_url(pattern):
        yield from _graph().match_url(pattern)
        return
    # Path.glob takes no absolute pattern
    for path in glob.iglob(pattern, recursive=True):  # noqa: PTH207
        if Path(path).is_file():
            yield path, Path(path).stat().st_size


def _is_url(path: str) -> bool:
    return "://" in path


def _graph() -> ModuleType:
    """The file that knows Beam and its filesystems; imported for URLs only: it takes seconds."""
    from pipeline import graph

    return graph
