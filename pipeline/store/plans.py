"""The plan of a run: its chunks, as they were when it began, so that a rerun has the same input.

`.work/plan.json` also says how `.work` is laid out. A run that another release began, with another
layout, isn't continued: its arrays would be taken for what they are not.
"""

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

LAYOUT = 4  # another one whenever a file below .work changes its name or its content


def make(folder: Folder, config: Config) -> list[Chunk]:
    """The chunks of this run: those it began with, if it has begun."""
    chunks = load(folder)
    if chunks is None:
        chunks = plan(config.sources, config.chunk_bytes)
        if not chunks:
            raise PipelineError("sources: they name no file to read; correct their `paths`")
        content = {"layout": LAYOUT, "chunks": [asdict(c) for c in chunks]}
        folder.write(_PLAN, json.dumps(content).encode())
    return chunks


def load(folder: Folder) -> list[Chunk] | None:
    """The chunks that a run began with; None when it hasn't.

    Raises PipelineError when it was begun with another layout.
    """
    try:
        return _read(folder, folder.version(_PLAN))
    except FileNotFoundError:
        return None


@lru_cache(1)
def _read(folder: Folder, version: str) -> list[Chunk]:
    """Kept, since every element of every stage asks; `version` tells another run's plan."""
    content = work.load_json(folder, _PLAN)
    layout = content.get("layout") if isinstance(content, dict) else 1  # once a list of chunks
    if layout != LAYOUT:
        raise PipelineError(
            f"{folder.path(_PLAN)}: layout {layout}, expected {LAYOUT}: another release of "
            "latemask began this run. Finish it with that release, or remove "
            f"{folder.path(work.WORK)} and run the same command again, which does all its work "
            "again; finished shards have the same bytes"
        )
    return [
        Chunk(c["index"], c["source"], tuple(InputFile(**file) for file in c["files"]))
        for c in content["chunks"]
    ]
