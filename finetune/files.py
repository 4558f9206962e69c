"""Files that a reader sees all of or nothing, and reading back the JSON among them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_text(path: Path, text: str) -> None:
    """Write beside, flush to disk, rename."""
    partial = _beside(path)
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, content: Any) -> None:
    """`write_text` of `content` as JSON, keys sorted."""
    write_text(path, json.dumps(content, indent=4, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of a finished or begun run; FinetuneError if it can't be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"found {str(content)[:40]}, expected an object")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"not JSON ({error})"
        raise FinetuneError(
            f"{path}: {reason}. Copy the file again, or move {path.parent} away to make it again."
        ) from None
    return content


def write_figure(path: Path, figure: Figure, dpi: int = 150) -> None:
    """`figure` as a PNG: beside, then renamed."""
    partial = _beside(path)
    figure.savefig(partial, dpi=dpi, format="png")
    partial.replace(path)


def _beside(path: Path) -> Path:
    # Two processes may write one file: of a table, the last one counts.
    return path.with_name(f"{path.name}.{os.getpid()}.partial")
