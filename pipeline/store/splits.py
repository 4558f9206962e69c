"""The split of a run, decided once it is known which documents are kept: `.work/split.json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np

from pipeline.config import Config, Split
from pipeline.split import with_validation
from pipeline.store import dropped, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pipeline.store.pieces import hashes_name

_NAME = f"{work.WORK}/split.json"


def decide(folder: Folder, config: Config) -> None:
    """Write the shares by which the kept documents of all pieces are split."""
    catalog = Catalog.load(folder)

    reasons = [dropped.marks(folder, reason) for reason in dropped.reasons(config)]

    def kept() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for piece in range(len(catalog)):
            records = folder.load(hashes_name(catalog.name(piece)))
            is_kept = np.ones(len(records), bool)
            for marks in reasons:
                is_kept &= ~marks[catalog.numbers(piece)]
            records = records[is_kept[records["ordinal"]]]
            yield records["document"][:, 0], records["characters"]

    split = with_validation(config.split, kept(), max(config.seq_lens))
    work.write_json(folder, _NAME, asdict(split))


def decided(folder: Folder, config: Config) -> Config:
    """`config` with the shares that `decide` has found, or its own before that."""
    stated = work.load_json(folder, _NAME)
    return replace(config, split=Split(**stated)) if stated else config
