"""Which documents deduplication drops: a mark per document, in one file for each reason.

`.work/dropped/duplicate.npy` and, with near-duplicates, `.work/dropped/near_duplicate.npy` are
bool [documents], by number; `….examples.json` beside each names some of its documents, as
`[[piece, ordinal, piece of the one kept, its ordinal]]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.sources.records import Document
from pipeline.store import pieces, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pipeline.store.stored_array import StoredArray

DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near_duplicate"
REASONS = (DUPLICATE, NEAR_DUPLICATE)
EXAMPLES = 5


def reasons(config: Config) -> tuple[str, ...]:
    """Those that a run with this config has."""
    return REASONS if config.near_duplicates else (DUPLICATE,)


def write(folder: Folder, reason: str, marks: np.ndarray, examples: list[tuple[int, int]]) -> None:
    """Write bool [documents], and numbers of documents dropped and kept as examples."""
    catalog = Catalog.load(folder)
    named = [[x for number in pair for x in catalog.position(number)] for pair in examples]
    work.write_json(folder, _examples_name(reason), named)
    folder.write(name(reason), work.array_bytes(marks))


def marks(folder: Folder, reason: str) -> StoredArray:
    """bool [documents], of which only what is looked at is read."""
    try:
        return folder.array(name(reason))
    except FileNotFoundError:
        raise PipelineError(
            f"{folder.path(name(reason))}: missing; remove {folder.path(work.WORK)} and run the "
            "same command again, which does its work again"
        ) from None


def of_piece(folder: Folder, config: Config, catalog: Catalog, piece: int) -> dict[int, str]:
    """Reason by ordinal of the documents of a piece that are dropped."""
    return {
        int(ordinal): reason
        for reason in reasons(config)
        for ordinal in np.flatnonzero(marks(folder, reason)[catalog.numbers(piece)])
    }


def kept_documents(
    folder: Folder, config: Config, catalog: Catalog, piece: int
) -> Iterator[Document]:
    """The cleaned documents of a piece that deduplication keeps."""
    drops = of_piece(folder, config, catalog, piece)
    for ordinal, document in enumerate(pieces.read_documents(folder, catalog.name(piece))):
        if ordinal not in drops:
            yield document


def examples(folder: Folder, reason: str) -> list[list[Any]]:
    """The examples of a reason."""
    return work.load_json(folder, _examples_name(reason)) or []


def name(reason: str) -> str:
    """File of the marks of a reason."""
    return f"{work.WORK}/dropped/{reason}.npy"


def _examples_name(reason: str) -> str:
    return f"{work.WORK}/dropped/{reason}.examples.json"
