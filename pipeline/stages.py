"""The stages of a run, in their order: what there is to do in each, and how one of it is done.

    chunks | read, clean > all        | list pieces > hash space | match equal texts
                         > all        | drop duplicates
    groups | sign        > hash space | match signatures > documents | list candidates
                         > hashes     | compare signatures             (these five if asked for)
                         > all        | drop near-duplicates
                         > all        | decide the split
    pieces | sample      > all        | train tokenizer                       (unless it is there)
    groups | tokenize    > all        | assign shards > shards | pack, write

Files carry the data from one stage to the next; what goes back is counts. Elements are chunks,
groups of pieces, parts and shards, never documents. What an element has finished before it finds
again, by receipt.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from pipeline.cleaning import documents
from pipeline.config import Config
from pipeline.dedup import duplicates, hash_space, near_duplicates
from pipeline.report import balance
from pipeline.shards import assign, shard
from pipeline.sources.records import Chunk
from pipeline.store import catalog, pieces, plans, splits, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pipeline.tokens import encoded, sample, tokenizer
from pipeline.tokens.words import Words

Counts = dict[str, int]

# A shard leaves up to a sequence of tokens over: with fewer sequences, too much of a corpus.
_SEQUENCES_PER_SHARD = 8

# One worker per processor is the runner's business. Set where workers first import this, since
# changing the environment later, beside other threads, isn't safe.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Stage(NamedTuple):
    """What there is to do, as of the moment when the stage begins, and how one of it is done."""

    name: str
    elements: Callable[[Folder, Config], list[Any]]
    work: Callable[[Folder, Config, Any], Counts]


def to_do(folder: Folder, config: Config) -> list[Stage]:
    """The stages that a run must go through: from documents on, if all pieces are whole."""
    deduplicated = _NEAR_DUPLICATES if config.near_duplicates else _DUPLICATES
    is_deduplicated = (
        folder.exists(work.sum_name(deduplicated[-1].name))
        and catalog.exists(folder)
        and all(pieces.read_chunk(folder, chunk.index) for chunk in _chunks(folder, config))
    )
    stages = []
    if not is_deduplicated:
        stages += _DUPLICATES
        stages += _NEAR_DUPLICATES if config.near_duplicates else []
    stages.append(_SPLIT)
    if not tokenizer.exists(folder):
        stages.append(_SAMPLE)
    return [*stages, *_TO_SHARDS]


def _once(folder: Folder, config: Config) -> list[int]:
    return [0]


def _chunks(folder: Folder, config: Config) -> list[Chunk]:
    return plans.load(folder) or []


def _clean(folder: Folder, config: Config, chunk: Chunk) -> Counts:
    return {"pieces": len(documents.clean_chunk(folder, chunk, config)["pieces"])}


def _list_pieces(folder: Folder, config: Config, _: int) -> Counts:
    chunks = len(_chunks(folder, config))
    balance.cleaned(folder, config, chunks)
    return {"pieces": catalog.write(folder, chunks)}


def _text_parts(folder: Folder, config: Config) -> list[int]:
    return list(range(hash_space.parts(Catalog.load(folder).documents)))


def _match_texts(folder: Folder, config: Config, part: int) -> Counts:
    return {"drops": duplicates.match(folder, part, len(_text_parts(folder, config)))}


def _drop_duplicates(folder: Folder, config: Config, _: int) -> Counts:
    return duplicates.drop(folder, len(_text_parts(folder, config)))


def _groups(folder: Folder, config: Config) -> list[int]:
    return list(range(Catalog.load(folder).groups))


def _sign(folder: Folder, config: Config, group: int) -> Counts:
    return {"signed": near_duplicates.sign(folder, config, group)["documents"]}


def _band_parts(folder: Folder, config: Config) -> list[int]:
    return list(range(near_duplicates.parts(folder, config)))


def _match_signatures(folder: Folder, config: Config, part: int) -> Counts:
    return {"candidates": near_duplicates.match(folder, part, len(_band_parts(folder, config)))}


def _list_candidates(folder: Folder, config: Config, part: int) -> Counts:
    parts = len(_band_parts(folder, config))
    return {"pairs": near_duplicates.list_candidates(folder, part, parts)}


def _hash_parts(folder: Folder, config: Config) -> list[int]:
    return list(range(near_duplicates.hash_parts(config, len(_band_parts(folder, config)))))


def _compare(folder: Folder, config: Config, part: int) -> Counts:
    parts = len(_band_parts(folder, config))
    return {"compared": near_duplicates.compare(folder, config, part, parts)}


def _drop_near_duplicates(folder: Folder, config: Config, _: int) -> Counts:
    return near_duplicates.drop(folder, config, len(_band_parts(folder, config)))


def _split(folder: Folder, config: Config, _: int) -> Counts:
    balance.deduplicated(folder, config, len(_chunks(folder, config)))
    splits.decide(folder, config)
    return {}


def _sampled(folder: Folder, config: Config) -> list[sample.Sampled]:
    return sample.choose(Catalog.load(folder), splits.decided(folder, config))


def _sample(folder: Folder, config: Config, sampled: sample.Sampled) -> Counts:
    return {"texts": sample.write(folder, splits.decided(folder, config), sampled)}


def _tokenizer(folder: Folder, config: Config, _: int) -> Counts:
    tokenizer.train_tokenizer(folder, splits.decided(folder, config))
    return {}


def _tokenize(folder: Folder, config: Config, group: int) -> Counts:
    words = _words(folder, config.dtype, folder.version(tokenizer.FILES[0]))
    receipt = encoded.tokenize_group(folder, group, splits.decided(folder, config), words)
    return {"tokens": receipt["tokens"]}


@lru_cache(1)
def _words(folder: Folder, dtype: str, version: str) -> Words:
    """Kept, so that a worker knows the words of the pieces before; `version` tells another run."""
    return Words(tokenizer.load(folder), dtype)


def _assign(folder: Folder, config: Config, _: int) -> Counts:
    fewest_tokens = _SEQUENCES_PER_SHARD * max(config.seq_lens)
    assign.assign_shards(folder, len(_groups(folder, config)), config.shards, fewest_tokens)
    return {}


def _shards(folder: Folder, config: Config) -> list[int]:
    return list(range(len(shard.shard_list(folder, config))))


def _write_shard(folder: Folder, config: Config, number: int) -> Counts:
    return {"sequences": shard.write_shard(folder, number, config)["sequences"]}


_DUPLICATES = [
    Stage("read and clean", _chunks, _clean),
    Stage("list pieces", _once, _list_pieces),
    Stage("match equal texts", _text_parts, _match_texts),
    Stage(balance.DUPLICATES, _once, _drop_duplicates),
]
_NEAR_DUPLICATES = [
    Stage("sign", _groups, _sign),
    Stage("match signatures", _band_parts, _match_signatures),
    Stage("list candidates", _band_parts, _list_candidates),
    Stage("compare signatures", _hash_parts, _compare),
    Stage(balance.NEAR_DUPLICATES, _once, _drop_near_duplicates),
]
_SPLIT = Stage("decide the split", _once, _split)
_SAMPLE = Stage("sample", _sampled, _sample)
_TO_SHARDS = [
    Stage("tokenizer", _once, _tokenizer),
    Stage("tokenize", _groups, _tokenize),
    Stage(assign.STAGE, _once, _assign),
    Stage("pack and write", _shards, _write_shard),
]
LAST = _TO_SHARDS[-1].name
