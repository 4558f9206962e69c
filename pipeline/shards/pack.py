"""Documents to rows of exactly `seq_len` tokens (Liu et al. 2019, §4.2). Pure numpy.

`full-sentences`: the documents joined with `sep` are one stream, and a row is `cls`, the next
seq_len − 2 tokens of it, `sep`. `doc-sentences`: no row reaches over the end of a document; the
last row of a document is its last seq_len − 2 tokens, which repeats some, and one that is shorter
than a row is left over. With sentence starts a row begins at one: what the row before has cut off
is repeated. There is no padding: what doesn't fill a row is left over, and counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Packed(NamedTuple):
    """Rows [n, seq_len], tokens of the stream in no row, and tokens in a second one."""

    rows: np.ndarray
    leftover: int
    repeated: int


def pack(
    documents: list[np.ndarray],
    seq_len: int,
    dtype: str = "uint16",
    starts: list[np.ndarray] | None = None,
    mode: str = "full-sentences",
    *,
    cls: int,
    sep: int,
) -> Packed:
    """Pack the token ids of documents.

    Args:
        documents: [tokens of each].
        seq_len: tokens in a row.
        dtype: of the ids.
        starts: [tokens of each], bool, which tokens begin a sentence.
        mode: `packing.mode`.
        cls: id of the token that begins a row.
        sep: id of the token that ends a row, and a document.
    """
    body = seq_len - 2
    marks = starts or [np.zeros(0, bool)] * len(documents)
    if mode == "doc-sentences":
        parts = [
            _cut(document, mark if starts else None, body, keep_tail=True)
            for document, mark in zip(documents, marks, strict=True)
        ]
    else:
        stream = _joined(documents, sep, dtype)
        # the separator ends a row rather than beginning one
        sentences = _joined(marks, False, "bool") if starts else None
        parts = [_cut(stream, sentences, body, keep_tail=False)]
    bodies = np.concatenate([np.empty((0, body), dtype), *(bodies for bodies, _ in parts)])
    rows = np.empty((len(bodies), seq_len), dtype)
    rows[:, 0] = cls
    rows[:, 1:-1] = bodies
    rows[:, -1] = sep
    leftover = sum(left for _, left in parts)
    tokens = sum(map(len, documents))
    if mode == "full-sentences":
        tokens += max(len(documents) - 1, 0)
    return Packed(rows, leftover, bodies.size - (tokens - leftover))


def _joined(arrays: list[np.ndarray], separator: int, dtype: str) -> np.ndarray:
    stream = np.full(sum(map(len, arrays)) + max(len(arrays) - 1, 0), separator, dtype)
    start = 0
    for array in arrays:
        stream[start : start + len(array)] = array
        start += len(array) + 1
    return stream


def _cut(
    stream: np.ndarray, sentences: np.ndarray | None, body: int, keep_tail: bool
) -> tuple[np.ndarray, int]:
    """Stretches [n, body] of a stream, and how many of its last tokens are in none."""
    last = len(stream) - body  # where the last stretch may begin
    if last < 0:
        return np.empty((0, body), stream.dtype), len(stream)
    if sentences is None:
        begins = np.arange(0, last + 1, body)
    else:
        begins = _sentence_begins(np.flatnonzero(sentences), last, body)
    if keep_tail and begins[-1] < last:
        begins = np.append(begins, last)
    covered = begins[-1] + body
    stretches = np.lib.stride_tricks.sliding_window_view(stream, body)[begins]
    return stretches, int(len(stream) - covered)


def _sentence_begins(sentences: np.ndarray, last: int, body: int) -> np.ndarray:
    """Where rows begin: each at the last sentence start that leaves no token out."""
    begins = []
    at = 0
    while at <= last:
        begins.append(at)
        end = at + body
        position = np.searchsorted(sentences, end, "right") - 1
        start = int(sentences[position]) if position >= 0 else 0
        at = start if start > at else end  # a sentence longer than a row continues in the next
    return np.array(begins)
