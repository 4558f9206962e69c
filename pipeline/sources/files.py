"""Input files wherever they lie: local paths and globs, or URLs through Beam's filesystems.

`blocks` and `lines` decompress .gz, .bz2 and .zst and tell a file that is cut off from one that
ends: `BadFile`.
"""

from __future__ import annotations

import bz2
import glob
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

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
        return _urls().match(path)[0][1]
    return Path(path).stat().st_size


def open_raw(path: str) -> IO[bytes]:
    """The bytes as they lie there, seekable, never decompressed."""
    if _is_url(path):
        return _urls().open_raw(path)
    return Path(path).open("rb")


def is_compressed(path: str) -> bool:
    """Whether a file is, by its name; it can then be read from its start only."""
    return Path(path).suffix in _DECODERS


def blocks(path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The decompressed bytes of a file, piece by piece. Raises BadFile when it is cut off.

    Of a plain file also those from `start` to `stop` alone.
    """
    try:
        with open_raw(path) as raw:
            if is_compressed(path):
                yield from _decompressed(raw, _DECODERS[Path(path).suffix])
                return
            if start:
                raw.seek(start)
            left = None if stop is None else stop - start
            while block := raw.read(_BLOCK_BYTES if left is None else min(_BLOCK_BYTES, left)):
                left = None if left is None else left - len(block)
                yield block
    except (EOFError, zlib.error, zstandard.ZstdError) as error:
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


def _decompressed(raw: IO[bytes], new_decoder: Callable[[], Any]) -> Iterator[bytes]:
    """All that can be had of one stream after the other, up to where the file is damaged.

    The libraries' own file objects give nothing of a block that damage is in, and zstandard's takes
    a stream that is cut off for the end of the file.
    """
    decoder = None
    while piece := raw.read(_BLOCK_BYTES // 4):
        while piece:
            decoder = decoder or new_decoder()
            yield decoder.decompress(piece)
            piece = b""
            if decoder.eof:
                piece = decoder.unused_data.lstrip(b"\0")  # gzip allows zeros behind a stream
                decoder = None
    if decoder is not None:
        raise EOFError("the last compressed stream has no end")


_DECODERS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".bz2": bz2.BZ2Decompressor,
    ".zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


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
        yield from _urls().match(pattern)
        return
    # Path.glob takes no absolute pattern
    for path in glob.iglob(pattern, recursive=True):  # noqa: PTH207
        if Path(path).is_file():
            yield path, Path(path).stat().st_size


def _is_url(path: str) -> bool:
    return "://" in path


def _urls() -> ModuleType:
    """Imported only where there is one."""
    from pipeline.sources import urls

    return urls
