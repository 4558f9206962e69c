"""Writing a file so that a reader sees all of it or none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_text(path: Path, text: str) -> None:
    """Write beside, flush to disk, rename."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, content: Any) -> None:
    """`write_text` of `content` as JSON, keys sorted."""
    write_text(path, json.dumps(content, indent=4, sort_keys=True) + "\n")


def write_figure(path: Path, figure: Figure, dpi: int = 150) -> None:
    """`figure` as a PNG: beside, then renamed."""
    partial = path.with_name(f"{path.name}.partial")
    figure.savefig(partial, dpi=dpi, format="png")
    partial.replace(path)
