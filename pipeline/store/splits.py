"""The split of a run, decided once it is known which documents are kept: `.work/split.json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np

from pipeline.config import Config, Split
from pipeline.split import with_validation
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.store.pieces import array_name, dropped

_NAME = f"{work.WORK}/split.json"


def decide(folder: Folder, config: Config, pieces: list[str]) -> None:
    """Write the shares by which the kept documents of all pieces are split."""

    def kept() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for piece in pieces:
            facts = folder.array(array_name(piece, "facts"))[:]
            is_kept = np.ones(len(facts), bool)
            is_kept[list(dropped(folder, piece))] = False
            yield facts["hash"][is_kept, 0], facts["characters"][is_kept]

    split = with_validation(config.split, kept(), max(config.seq_lens))
    work.write_json(folder, _NAME, asdict(split))


def decided(folder: Folder, config: Config) -> Config:
    """`config` with the shares that `decide` has found, or its own before that."""
    stated = work.load_json(folder, _NAME)
    return replace(config, split=Split(**stated)) if stated else config
