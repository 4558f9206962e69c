"""Data folders as tests make and compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline import provenance
from pipeline.config import Config
from pipeline.run import run

IN_MEMORY = "--direct_num_workers=1"


def make(config: Config, *options: str, overwrite: bool = False) -> dict[str, Any]:
    """Run the stage on the local runner; the manifest."""
    return run(config, ["--runner=DirectRunner", *options], overwrite, lambda *_: None)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of shards and JSON files."""
    names = [*folder.glob("*.tar"), *folder.glob("*.json*")]
    return {path.name: path.read_bytes() for path in names}


def data(folder: Path) -> dict[str, Any]:
    """`contents`, but of the manifest what it says of the data, without command and versions."""
    manifest = provenance.without(json.loads((folder / "manifest.json").read_text()))
    return contents(folder) | {"manifest.json": json.dumps(manifest)}
