"""Reading text line by line as its writer meant it, or refusing it by line and byte.

The first bytes say whether a file is gzipped and whether it is UTF-16 or UTF-32; everything else is
UTF-8, with or without a byte order mark. No encoding is guessed: Latin-1 decodes any bytes, and
turns a file of UTF-8 with one bad byte in it into another text without a word.
"""

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from finetune.errors import FinetuneError

GZIP = b"\x1f\x8b"
# The longest first: UTF-32's mark begins as UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CONVERT = "Save it as UTF-8, for example with iconv -f WINDOWS-1252 -t UTF-8"


def read_lines(path: Path | None, otherwise: str | None = None) -> Iterator[str]:
    """Yield the lines of a file, of standard input for None, each with its line end.

    A line ends with a line feed; in a file without any, with a carriage return. `otherwise` is the
    encoding of single lines that aren't UTF-8. FinetuneError names file and line.
    """
    name = "standard input" if path is None else str(path)
    try:
        # Standard input isn't ours to close.
        with nullcontext(sys.stdin.buffer) if path is None else path.open("rb") as stream:
            for number, line in enumerate(_utf8_lines(stream, name), start=1):
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    if otherwise is None:
                        raise _undecodable(name, number, line, error) from None
                    text = line.decode(otherwise)
                yield text
    except (OSError, EOFError, zlib.error) as error:
        raise FinetuneError(f"{name}: {getattr(error, 'strerror', None) or error}.") from None


def _utf8_lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """The lines, unpacked and in UTF-8 unless they are wrong."""
    first = stream.readline()
    if first.startswith(GZIP):
        return _utf8_lines(io.BytesIO(gzip.decompress(first + stream.read())), name)
    for mark, encoding in _MARKS.items():
        if first.startswith(mark):
            text = _decode_wide(first + stream.read(), encoding, name)
            return _utf8_lines(io.BytesIO(text.encode()), name)
    first = first.removeprefix(codecs.BOM_UTF8)
    if first.count(0) > len(first) / 5:
        raise FinetuneError(
            f"{name}, line 1: found {first.count(0)} zero bytes of {len(first)}, expected text: "
            "UTF-16 needs a byte order mark. Save it as UTF-8."
        )
    if not first.endswith(b"\n"):
        return iter(first.splitlines(keepends=True))
    return chain([first], stream)


def _decode_wide(content: bytes, encoding: str, name: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        number = content[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise FinetuneError(
            f"{name}, line {number}: not {encoding.upper()} from byte {error.start + 1:,} of the "
            f"file on ({error.reason}), which its byte order mark says it is. Save it as UTF-8."
        ) from None


def _undecodable(name: str, number: int, line: bytes, error: UnicodeDecodeError) -> FinetuneError:
    before = line[: error.start].decode()[-20:]
    return FinetuneError(
        f"{name}, line {number}, byte {error.start + 1}: found 0x{line[error.start]:02x} after "
        f"{before!r}, expected UTF-8. {_CONVERT}."
    )


def check_text(text: str) -> None:
    """ValueError for half of a surrogate pair: JSON can escape it, but no tokenizer can read it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = ord(text[error.start])
        before = text[max(0, error.start - 20) : error.start]
        raise ValueError(f"found \\u{found:04x}, half a surrogate pair, after {before!r}") from None
