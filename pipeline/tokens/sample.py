"""The texts that a tokenizer is trained on: a seeded sample of the training documents.

Documents are chosen by a hash of their ids. Of a corpus of more than SPREAD times as much text as
is wanted, only pieces chosen by a hash of their names are read: reading ten terabytes for a
hundred megabytes would take two days. `.work/sample/00012-000.jsonl.zst` holds what a piece gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from pipeline.config import Config
from pipeline.config import Tokenizer as TokenizerConfig
from pipeline.split import document_hash, split_of
from pipeline.store import dropped, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder

SPREAD = 100


class Sampled(NamedTuple):
    """A piece to read, and the share of its training documents to take."""

    piece: int
    share: float


def choose(catalog: Catalog, config: Config) -> list[Sampled]:
    """The pieces to read, in their order: all of them, or some that hold enough."""
    settings = config.tokenizer
    pieces = list(range(len(catalog)))
    text_bytes = catalog.array["text_bytes"]
    if text_bytes.sum() > SPREAD * settings.sample_bytes:
        pieces = sorted(_enough(catalog, settings))
    available = sum(int(text_bytes[piece]) for piece in pieces)
    train_share = 1 - config.split.valid - config.split.tasks
    share = settings.sample_bytes / max(available, 1) / train_share
    return [Sampled(piece, share) for piece in pieces]


def _enough(catalog: Catalog, settings: TokenizerConfig) -> Iterator[int]:
    """Pieces by a seeded hash of their names, until they hold SPREAD samples."""

    def lot(piece: int) -> bytes:
        return document_hash(f"{settings.seed}:{catalog.name(piece)}")

    found = 0
    for piece in sorted(range(len(catalog)), key=lot):
        if found >= SPREAD * settings.sample_bytes:
            break
        found += int(catalog.array["text_bytes"][piece])
        yield piece


def write(folder: Folder, config: Config, sampled: Sampled) -> int:
    """Write the sample of one piece; its number of texts."""
    catalog = Catalog.load(folder)
    texts = []
    for document in dropped.kept_documents(folder, config, catalog, sampled.piece):
        if split_of(document_hash(document.id), config.split) == "train":
            lot = document_hash(f"{config.tokenizer.seed}:{document.id}")
            if int.from_bytes(lot[:8], "big") / 2**64 < sampled.share:
                texts.append(document.text)
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    path = _name(catalog.name(sampled.piece))
    folder.write(path, zstandard.compress(lines.encode(), 3))
    return len(texts)


def read(folder: Folder, config: Config) -> Iterator[str]:
    """The whole sample, the same texts in the same order each time."""
    catalog = Catalog.load(folder)
    for sampled in choose(catalog, config):
        content = folder.read(_name(catalog.name(sampled.piece)))
        for line in zstandard.decompress(content).split(b"\n")[:-1]:
            yield json.loads(line)


def _name(piece: str) -> str:
    return f"{work.WORK}/sample/{piece}.jsonl.zst"
