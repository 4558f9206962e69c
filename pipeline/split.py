"""Where a document goes: a pure function of its id, so the same on every run and runner.

The blake2b hash of the id gives the split (first 8 bytes as a share of [0, 1)) and the position in
the order of the split, which shards are ranges of (all 16 bytes). Validation has the lowest shares:
of a corpus so small that `split.valid` gives it next to nothing, it gets some more of them. The
parts of a document that was cut share the first 8 bytes with the whole: so they are in one split,
and of two equal documents all parts of the same one stay.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from pipeline.config import Split
from pipeline.errors import PipelineError

SplitName = Literal["train", "valid", "tasks"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
CHARACTERS_PER_TOKEN = 8  # more than a token has in any ordinary text
_PARTS = re.compile(r"(?: part \d+)+\Z")


def part_id(document_id: str, number: int) -> str:
    """Id of a part of a document, counted from 1; the first has the document's own."""
    return document_id if number == 1 else f"{document_id} part {number}"


def document_hash(document_id: str) -> bytes:
    """16 bytes that stand for a document, or for a part of one."""
    digest = hashlib.blake2b(document_id.encode(), digest_size=16).digest()
    whole = _PARTS.sub("", document_id)
    return digest if whole == document_id else document_hash(whole)[:8] + digest[8:]


def split_of(digest: bytes, split: Split) -> SplitName:
    """The split of a document, by the share of hash space below it."""
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < split.valid:
        return "valid"
    return "tasks" if share < split.valid + split.tasks else "train"


def with_validation(
    split: Split, pieces: Iterable[tuple[np.ndarray, np.ndarray]], seq_len: int
) -> Split:
    """`split`, with a larger share for validation where that would not fill a sequence.

    Then the documents with the smallest hashes are added until their text is enough, but at most
    half of all, and at least one. Nothing changes for a corpus of which `split.valid` is enough.

    Args:
        split: the shares that were asked for.
        pieces: of the kept documents, in any order and grouping, the first 8 bytes of the hash,
            uint64 [n], and the characters [n]. No more of them are read than it takes.
        seq_len: tokens in a sequence, the longest.

    Raises:
        PipelineError: there are fewer than two documents.
    """
    enough = CHARACTERS_PER_TOKEN * seq_len
    found = documents = 0
    highest = -1.0
    lowest = np.empty(0)
    lengths = np.empty(0, np.int64)
    for hashes, characters in pieces:
        shares = hashes / 2**64  # as in `split_of`, to the last bit
        found += int(characters[shares < split.valid].sum())
        if found >= enough:
            return split
        documents += len(shares)
        highest = max(highest, float(shares.max(initial=-1)))
        shares = np.concatenate([lowest, shares])
        order = np.argsort(shares)
        lengths = np.concatenate([lengths, characters.astype(np.int64)])[order]
        needed = int(np.searchsorted(np.cumsum(lengths), enough)) + 1
        lowest = shares[order][:needed]
        lengths = lengths[:needed]
    most = max(1, int(documents * (1 - split.tasks) / 2))
    candidates = lowest[:most][lowest[:most] < highest]  # parts of a document have one share
    if not len(candidates):
        raise PipelineError(
            f"{min(documents, 1)} document is left after cleaning and deduplication, and training "
            "and validation need one each: add documents, or see `documents` of a text source"
        )
    return replace(split, valid=max(split.valid, math.nextafter(float(candidates[-1]), 1)))
