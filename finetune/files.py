"""Files that a reader sees all of or nothing, and reading back the JSON among them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

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


class _StrictLoader(yaml.SafeLoader):
    """Refuses what plain YAML passes over: a key that stands twice, of which the last would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in the base class."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if key_node.tag != "tag:yaml.org,2002:merge" and key in lines:
                raise FinetuneError(f"{key}: found in lines {lines[key]} and {line}, expected once")
            lines[key] = line
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a config file; FinetuneError if it can't be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader) or {}
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise FinetuneError(
            f"--config {path}, line {line}: found a byte that isn't UTF-8; save it as UTF-8."
        ) from None
    except (OSError, yaml.YAMLError, FinetuneError) as error:
        raise FinetuneError(f"--config {path}: {error}") from None


def write_figure(path: Path, figure: Figure, dpi: int = 150) -> None:
    """`figure` as a PNG: beside, then renamed."""
    partial = _beside(path)
    figure.savefig(partial, dpi=dpi, format="png")
    partial.replace(path)


def _beside(path: Path) -> Path:
    # Two processes may write one file: of a table, the last one counts.
    return path.with_name(f"{path.name}.{os.getpid()}.partial")
