"""What was measured: one JSON file a part, and a report of all, rewritten after every change."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import markdown
from benchmarks.tiny_run import ROOT

logger = logging.getLogger(__name__)


class Records:
    """A folder of records."""

    def __init__(self, folder: Path, machine: str, again: Collection[str] = ()) -> None:
        """Read what is there.

        Args:
            folder: made if it is missing.
            machine: goes into the report.
            again: parts whose records are left unread, to be replaced.
        """
        self.folder = folder
        self.machine = machine
        folder.mkdir(parents=True, exist_ok=True)
        self._parts: dict[str, dict[str, Any]] = {}
        for file in sorted(folder.glob("*.json")):
            if file.stem not in again:
                self._parts[file.stem] = json.loads(file.read_text())
        self._commit = _commit()

    def get(self, part: str) -> dict[str, Any]:
        """What is known of a part; empty if nothing is."""
        return dict(self._parts.get(part, {}))

    def put(self, part: str, content: dict[str, Any]) -> None:
        """Keep it, and write the report again."""
        stamp = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "commit": self._commit}
        self._parts[part] = {"machine": self.machine} | stamp | content
        text = json.dumps(self._parts[part], indent=1) + "\n"
        _replace(self.folder / f"{part}.json", text)
        _replace(self.folder / "report.md", self.report())

    def report(self) -> str:
        """All parts as markdown."""
        return markdown(self.machine, self._parts)


def _replace(file: Path, text: str) -> None:
    """Write as a whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text)
    partial.replace(file)


def _commit() -> str | None:
    """Of the checkout, if it is one; with a + where files differ from it."""
    try:
        names = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"]
        return subprocess.run(names, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
