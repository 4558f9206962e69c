"""Where a document goes: a pure function of its id, so the same on every run and runner.

The blake2b hash of the id gives the split (first 8 bytes as a share of [0, 1)) and the place in the
order of the split, which shards are ranges of (all 16 bytes).
"""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

from pipeline.config import Split

SplitName = Literal["train", "valid", "tasks"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


def document_hash(document_id: str) -> bytes:
    """16 bytes that stand for a document."""
    return hashlib.blake2b(document_id.encode(), digest_size=16).digest()


def split_of(digest: bytes, split: Split) -> SplitName:
    """The split of a document, by the share of hash space below it."""
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < split.valid:
        return "valid"
    return "tasks" if share < split.valid + split.tasks else "train"
