"""JSON values out of a stream of bytes, one after the other, by their brackets alone.

What stands in a value is for `json.loads`: so it is the same JSON as in lines, with NaN and
integers of any size, and a value that is none costs no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

_MOST_BYTES = 1 << 30  # of a value; a quote that is missing makes the rest of the file one
_BETWEEN = re.compile(rb"[\s,]*+")
_SCALAR = re.compile(rb'[^\s,\[\]{}"]++(?=.)', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{}]', re.DOTALL)  # strings are whole


def split(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The elements of the outermost arrays, and values that stand in none.

    Blanks and commas separate them, or nothing does; only one value is in memory at a time.

    Args:
        blocks: UTF-8, cut anywhere.

    Raises:
        EOFError: the last value, or the array, has no end.
    """
    blocks = chain(blocks, [b"\n"])  # that ends a number, too
    buffer = b""
    at = 0
    in_array = False
    while True:
        if between := _BETWEEN.match(buffer, at):
            at = between.end()
        first = buffer[at : at + 1]
        if first == (b"]" if in_array else b"["):
            in_array = not in_array
            at += 1
        elif end := _end(buffer, at):
            yield buffer[at:end]
            at = end
        else:
            # at least twice as much, so that what is looked at again is no more than all
            more = _more(blocks, len(buffer) - at)
            if not more:
                break
            buffer = buffer[at:] + more
            at = 0
            if len(buffer) > _MOST_BYTES:
                raise EOFError(f"a value has no end within {_MOST_BYTES:,} bytes")
    if at < len(buffer):
        raise EOFError(f"the value that begins with {buffer[at : at + 20]!r} has no end")
    if in_array:
        raise EOFError("the array has no end")


def _end(buffer: bytes, at: int) -> int:
    """Where the value that begins at `at` ends; 0 when it isn't there as a whole."""
    if scalar := _SCALAR.match(buffer, at):
        return scalar.end()
    depth = 0
    for token in _TOKEN.finditer(buffer, at):
        if token[0] == b'"':
            return 0
        if token[0] in b"[{":
            depth += 1
        elif token[0] in b"]}":
            depth -= 1
        if depth <= 0:
            return token.end()
    return 0


def _more(blocks: Iterator[bytes], least: int) -> bytes:
    """The next blocks, of `least` bytes in all if there are as many."""
    found: list[bytes] = []
    size = 0
    for block in blocks:
        found.append(block)
        size += len(block)
        if size >= least and size:
            break
    return b"".join(found)
