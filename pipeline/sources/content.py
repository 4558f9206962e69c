"""What a file is by its first bytes, whatever its name says: compressed, text, or neither."""

from __future__ import annotations

import bz2
import codecs
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any

import zstandard

HEAD_BYTES = 4096  # that tell what a file is

_WINDOW = 1 << 31  # the largest that zstd has (`--long=31`); by default it takes an eighth of it
_DECODERS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
    b"BZh": bz2.BZ2Decompressor,
    b"\x28\xb5\x2f\xfd": lambda: zstandard.ZstdDecompressor(
        max_window_size=_WINDOW
    ).decompressobj(),
    b"\xfd7zXZ\x00": lzma.LZMADecompressor,
}
_ERRORS = (EOFError, zlib.error, zstandard.ZstdError, lzma.LZMAError)
_MARKS = {  # the longest first: UTF-32's begins as UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NO_TEXT = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer instead of the file; fetch it "
    "with `git lfs pull`",
    b"PAR1": "Parquet; `kind: parquet` reads it",
    b"ARROW1": "an Arrow file; `kind: huggingface` reads a folder of them",
    b"Obj\x01": "an Avro file; convert it to JSON lines",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it",
    b"Rar!\x1a\x07": "a RAR archive; unpack it",
    b"%PDF-": "a PDF; extract its text",
    b"SQLite format 3\x00": "an SQLite database; export its text",
    b"\x89HDF\r\n": "an HDF5 file; export its text",
    b"\x93NUMPY": "a NumPy array; texts are expected",
    b"\x04\x22\x4d\x18": "compressed by lz4; decompress it, or use gzip, bzip2, zstd or xz",
    b"\xff\x06\x00\x00sNaPpY": "compressed by snappy; decompress it, or use gzip or zstd",
    b"\x1f\x9d": "compressed by compress (.Z); decompress it, or use gzip or zstd",
    **dict.fromkeys(_DECODERS, "compressed twice; decompress it once"),
}
_TAR = re.compile(rb".{257}ustar", re.DOTALL)
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html[\s>])", re.DOTALL | re.IGNORECASE)
_STORE_ERROR = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<Error>\s*<Code>(\w+)")


def decoder(head: bytes) -> Callable[[], Any] | None:
    """What makes a decompressor of the file that begins so; None for a plain one."""
    for magic, new in _DECODERS.items():
        if head.startswith(magic):
            return new
    return None


def is_damage(error: Exception) -> bool:
    """Whether a decompressor has raised this; bz2's errors are OSErrors without a number."""
    return isinstance(error, _ERRORS) or (isinstance(error, OSError) and error.errno is None)


def marked_encoding(head: bytes) -> str | None:
    """The encoding that a byte order mark names."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)


def no_text(head: bytes, name: str) -> str | None:
    """What a file is that isn't text, and what to do; None for what may be text.

    Args:
        head: the first bytes, decompressed.
        name: of the file; one that is called `.html` may be HTML.
    """
    for magic, found in _NO_TEXT.items():
        if head.startswith(magic):
            return found
    if _TAR.match(head):
        return "a tar archive; unpack it"
    if ".htm" not in name.lower() and _HTML.match(head):
        return "an HTML page, as servers send when there is no such file; fetch it again"
    if error := _STORE_ERROR.match(head):
        return f"an object store's error message ({error[2].decode()}); fetch it again"
    return None


def has_returns_alone(head: bytes) -> bool:
    """Whether carriage returns without line feeds end the lines, as in files of old Macs."""
    return b"\n" not in head and b"\r" in head[:-1]  # the last may belong to a line feed


def is_binary(head: bytes) -> bool:
    """Whether a file can't be text in an encoding with ASCII's line feeds: many bytes are 0."""
    return head.count(0) > len(head) // 5


def likely_encoding(head: bytes) -> str:
    """Which of UTF-16 and UTF-32 a binary file may be, by where most bytes are 0."""
    zeros = "".join("0" if head[i::4].count(0) > len(head) // 8 else "x" for i in range(4))
    by_zeros = {"x000": "utf-32-le", "000x": "utf-32-be", "0x0x": "utf-16-be"}
    return by_zeros.get(zeros, "utf-16-le")
