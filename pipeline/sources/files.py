"""The input files of a source, and the bytes in them: local, or behind URLs.

`blocks`, `lines` and `stream` decompress. The first bytes decide how, and name a file that is
no text at all; one that is cut off or damaged is a `BadFile`, too.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import IO, Any, cast

from pipeline.config import Source
from pipeline.credentials import public
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import content, paths
from pipeline.sources.naming import file_names
from pipeline.sources.records import InputFile

_BLOCK_BYTES = 1 << 20
_URL = re.compile(r"(?!file://)[A-Za-z][A-Za-z0-9+.-]*://")


def matching(source: Source, suffixes: tuple[str, ...] = ()) -> list[InputFile]:
    """The files of a source, in the order of its paths, each path's sorted by name.

    Args:
        source: its paths are files, folders, patterns, or URLs of one of these.
        suffixes: how the names of its kind end; they choose files in folders alone.

    Raises:
        PipelineError: a path names nothing.
    """
    found: dict[str, tuple[str, int]] = {}
    for pattern in source.paths:
        for path, size in match(pattern, f"sources ({source.label})", suffixes):
            key = public(path) if is_url(path) else os.path.abspath(path)  # noqa: PTH100
            found.setdefault(key, (path, size))
    names = file_names(source.label, list(found))
    return [InputFile(path, names[key], max(size, 0), size) for key, (path, size) in found.items()]


def match(pattern: str, key: str, suffixes: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    """(path, bytes) of what a path or pattern names, sorted; -1 where a URL's size isn't known.

    Raises PipelineError naming the key, and the path that was tried, when there is nothing.
    """
    if is_url(pattern):
        found, tried = _urls().match(pattern, suffixes), pattern
    else:
        tried = os.path.abspath(paths.local(pattern))  # noqa: PTH100
        try:
            found = [(path, size(path)) for path in paths.match(pattern, suffixes)]
        except OSError as error:
            raise PipelineError(
                f"{key}: {error.filename or tried}: can't be read ({error.strerror})"
            ) from error
    if not found:
        what = "no regular file, and no folder with files" if _exists(tried) else "no file matches"
        raise PipelineError(
            f"{key}: {pattern!r}: {what} ({tried}); correct `paths`, or fetch the corpus first"
        )
    return found


def size(path: str) -> int:
    """Bytes of a file; -1 where a URL's isn't known. Raises OSError when there is none."""
    return int(_urls().size(path)) if is_url(path) else Path(path).stat().st_size


def has_ranges(path: str) -> bool:
    """Whether parts of a file can be read: not so behind an HTTP server that sends whole ones."""
    return not is_url(path) or bool(_urls().has_ranges(path))


def open_raw(path: str) -> IO[bytes]:
    """The bytes as they are stored, never decompressed; seekable where the file `has_ranges`."""
    return _urls().open_raw(path) if is_url(path) else Path(path).open("rb")


def unreachable(url: str, error: Exception) -> PipelineError:
    """The one line about whatever a file system has raised."""
    return _urls().unreachable(url, error)


def head(path: str) -> bytes:
    """The first bytes of a file as they are stored."""
    with open_raw(path) as raw:
        return raw.read(content.HEAD_BYTES)


def blocks(path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The decompressed bytes of a file, block by block; of a plain one from `start` to `stop`.

    Raises BadFile when it is cut off, or by its first bytes no text.
    """
    with open_raw(path) as raw:
        if start or stop is not None:
            raw.seek(start)
            found = _range(raw, None if stop is None else stop - start)
        else:
            found = _decompressed(raw, path)
        first = b"" if start else next(found, b"")
        if problem := content.no_text(first[: content.HEAD_BYTES], path.rsplit("/", 1)[-1]):
            raise BadFile(f"{path}: {problem}")
        yield from chain([first], found)


def lines(path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """Lines with their line feed, if they have one; of a plain file from `start` to `stop`."""
    return split_lines(blocks(path, start, stop))


def split_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines in blocks of bytes."""
    waiting: list[bytes] = []  # of a line that is longer than a block
    for block in blocks:
        first, *others = block.split(b"\n")
        waiting.append(first)
        if others:
            yield b"".join(waiting) + b"\n"
            *whole, rest = others
            for line in whole:
                yield line + b"\n"
            waiting = [rest]
    if rest := b"".join(waiting):
        yield rest


def stream(blocks: Iterator[bytes]) -> IO[bytes]:
    """Blocks of bytes as a file, for libraries that read one.

    It isn't buffered: a buffer loses what it has when the next block can't be had.
    """
    return cast(IO[bytes], _Stream(blocks))


class _Stream(io.RawIOBase):
    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _range(raw: IO[bytes], left: int | None) -> Iterator[bytes]:
    while block := raw.read(_BLOCK_BYTES if left is None else min(_BLOCK_BYTES, left)):
        left = None if left is None else left - len(block)
        yield block


def _decompressed(raw: IO[bytes], path: str) -> Iterator[bytes]:
    first = raw.read(_BLOCK_BYTES // 4)
    new_decoder = content.decoder(first)
    rest = iter(lambda: raw.read(_BLOCK_BYTES // 4), b"")
    if new_decoder is None:
        yield from chain([first] if first else [], rest)
        return
    try:
        yield from _decoded(chain([first], rest), new_decoder)
    except Exception as error:
        if not content.is_damage(error):
            raise
        what = "cut off" if isinstance(error, EOFError) else "damaged"
        raise BadFile(f"{path}: {what} ({error}); fetch it again") from error


def _decoded(pieces: Iterator[bytes], new_decoder: Callable[[], Any]) -> Iterator[bytes]:
    """All that can be had of one stream after the other, up to where the file is damaged.

    The libraries' own file objects give nothing of a block that damage is in, and zstandard's takes
    a stream that is cut off for the end of the file.
    """
    decoder = None
    for piece in pieces:
        while piece := piece if decoder else piece.lstrip(b"\0"):  # gzip allows zeros between
            decoder = decoder or new_decoder()
            if block := decoder.decompress(piece):
                yield block
            piece = b""
            if decoder.eof:
                piece = decoder.unused_data
                decoder = None
    if decoder is not None:
        raise EOFError("the last compressed stream has no end")


def is_url(path: str) -> bool:
    """Whether a path is for fsspec: a URL, and no local file as it stands."""
    return _URL.match(path) is not None and not os.path.lexists(path)


def _exists(path: str) -> bool:
    return not is_url(path) and os.path.lexists(path)


def _urls() -> ModuleType:
    """Imported only where there is one."""
    from pipeline.sources import urls

    return urls
