"""The plan of a run: its chunks, as they were when it began, so that a rerun has the same input."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.sources import plan
from pipeline.sources.records import Chunk, InputFile
from pipeline.store import work
from pipeline.store.folder import Folder

_PLAN = f"{work.WORK}/plan.json"


def make(folder: Folder, config: Config) -> list[Chunk]:
    """The chunks of this run: those it began with, if it has begun."""
    chunks = load(folder)
    if chunks is None:
        chunks = plan(config.sources, config.chunk_bytes)
        if not chunks:
            raise PipelineError("sources: they name no file to read; correct their `paths`")
        folder.write(_PLAN, json.dumps([asdict(c) for c in chunks]).encode())
    return chunks


def load(folder: Folder) -> list[Chunk] | None:
    """The chunks that a run began with; None when it hasn't."""
    try:
        return _read(folder, folder.version(_PLAN))
    except FileNotFoundError:
        return None


@lru_cache(1)
def _read(folder: Folder, version: str) -> list[Chunk]:
    """Kept, since every element of every stage asks; `version` tells another run's plan."""
    return [
        Chunk(c["index"], c["source"], tuple(InputFile(**file) for file in c["files"]))
        for c in work.load_json(folder, _PLAN)
    ]
