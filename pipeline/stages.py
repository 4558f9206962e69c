"""The stages of a run, in their order: what there is to do in each, and how one of it is done.

    chunks | read, clean   > hash space | match pairs > all | settle duplicates > all | tokenizer
    pieces | tokenize      > all        | cut         > shards | pack, write

Files carry the data from one stage to the next; what goes back is counts. Elements are chunks,
parts and shards, never documents. What an element has finished before it finds again, by receipt.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from pipeline.cleaning import documents
from pipeline.config import Config
from pipeline.dedup import duplicates
from pipeline.report import balance
from pipeline.shards import shard
from pipeline.sources.records import Chunk
from pipeline.store import pieces, plans, splits, work
from pipeline.store.folder import Folder
from pipeline.tokens import encoded, tokenizer
from pipeline.tokens.words import Words

Counts = dict[str, int]

# One worker per processor is the runner's business. Set where workers first import this, since
# changing the environment later, beside other threads, isn't safe.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Stage(NamedTuple):
    """What there is to do, as of the moment when the stage begins, and how one of it is done."""

    name: str
    elements: Callable[[Folder, Config], list[Any]]
    work: Callable[[Folder, Config, Any], Counts]


def to_do(folder: Folder, config: Config) -> list[Stage]:
    """The stages that a run must go through: without the first, if its pieces are all whole."""
    settled = folder.exists(work.sum_name(SETTLE)) and all(
        pieces.read_chunk(folder, chunk.index) for chunk in _chunks(folder, config)
    )
    return [*([] if settled else _TO_DOCUMENTS), *_TO_SHARDS]


def _chunks(folder: Folder, config: Config) -> list[Chunk]:
    return plans.load(folder) or []


def _clean(folder: Folder, config: Config, chunk: Chunk) -> Counts:
    return {"pieces": len(documents.clean_chunk(folder, chunk, config)["pieces"])}


def _parts(folder: Folder, config: Config) -> list[int]:
    return list(range(duplicates.parts(folder, len(_chunks(folder, config)))))


def _match(folder: Folder, config: Config, part: int) -> Counts:
    chunks, parts = len(_chunks(folder, config)), len(_parts(folder, config))
    return {"pairs": duplicates.match(folder, chunks, part, parts, config.near_duplicates)}


def _once(folder: Folder, config: Config) -> list[int]:
    return [0]


def _settle(folder: Folder, config: Config, _: int) -> Counts:
    return duplicates.settle(folder, len(_chunks(folder, config)), len(_parts(folder, config)))


def _tokenizer(folder: Folder, config: Config, _: int) -> Counts:
    names = balance.cleaned(folder, len(_chunks(folder, config)))["pieces"]
    splits.decide(folder, config, names)
    tokenizer.provide(folder, splits.decided(folder, config), names)
    return {}


def _pieces(folder: Folder, config: Config) -> list[str]:
    return pieces.pieces(folder, len(_chunks(folder, config)))


def _tokenize(folder: Folder, config: Config, piece: str) -> Counts:
    words = _words(folder, config.dtype, folder.version(tokenizer.FILES[0]))
    receipt = encoded.tokenize_piece(folder, piece, splits.decided(folder, config), words)
    return {"tokens": receipt["tokens"]}


@lru_cache(1)
def _words(folder: Folder, dtype: str, version: str) -> Words:
    """Kept, so that a worker knows the words of the pieces before; `version` tells another run."""
    return Words(tokenizer.load(folder), dtype)


def _cut(folder: Folder, config: Config, _: int) -> Counts:
    encoded.cut(folder, _pieces(folder, config), config)
    return {}


def _shards(folder: Folder, config: Config) -> list[int]:
    return list(range(len(shard.shard_list(folder, config))))


def _write_shard(folder: Folder, config: Config, number: int) -> Counts:
    receipt = shard.write_shard(folder, number, config, _pieces(folder, config))
    return {"sequences": receipt["sequences"]}


SETTLE = balance.SETTLE
_TO_DOCUMENTS = [
    Stage("read and clean", _chunks, _clean),
    Stage("match", _parts, _match),
    Stage(SETTLE, _once, _settle),
]
_TO_SHARDS = [
    Stage("tokenizer", _once, _tokenizer),
    Stage("tokenize", _pieces, _tokenize),
    Stage("cut", _once, _cut),
    Stage("pack and write", _shards, _write_shard),
]
LAST = _TO_SHARDS[-1].name
