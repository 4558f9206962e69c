"""The finished jobs of a folder, as `python -m finetune.glue` leaves them (jobs/train.py)."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError
from finetune.files import read_json
from finetune.tasks import TASKS

logger = logging.getLogger(__name__)

FOLDER = re.compile(
    r"(?P<task>[^/]+)/(?P<method>[^/]+)(/lr-(?P<rate>[\d.]+(e[+-]?\d+)?))?/seed-(?P<seed>\d+)"
)
# Figures of evaluation that are no metrics.
FIGURES = ("loss", "runtime", "samples", "per_second", "model_preparation_time")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished job: what it was asked for (`settings`) and what it found (`results`)."""

    task: str
    method: str
    learning_rate: float | None
    seed: int
    folder: Path
    settings: dict[str, Any]
    results: dict[str, Any]

    @property
    def status(self) -> str:
        """ok, collapsed or diverged (tasks/kinds.py)."""
        return self.results.get("status", "ok")

    @property
    def metrics(self) -> dict[str, float]:
        """The task's metrics, its first one first, with those of further dev sets (`_mm`)."""
        found = {
            key.removeprefix("eval_"): value
            for key, value in self.results.items()
            if key.startswith("eval_") and isinstance(value, float)
        }
        if self.task in TASKS:
            names = [f"{m}{s}" for m in TASKS[self.task].metrics for s in ("", "_mm")]
        else:
            names = [name for name in found if not any(f in name for f in FIGURES)]
            asked = self.settings.get("metrics", [])  # JSON files have their keys sorted
            names.sort(key=lambda name: asked.index(name) if name in asked else len(asked))
        return {name: found[name] for name in names if name in found}


def read_runs(folder: Path) -> list[Run]:
    """Every finished job under `folder`; FinetuneError if there is none."""
    runs = []
    for path in sorted(folder.glob("*/*/**/seed-*/all_results.json")):
        found = FOLDER.fullmatch(path.parent.relative_to(folder).as_posix())
        if found is None:
            logger.warning("%s is passed over: not TASK/METHOD/[lr-RATE/]seed-N", path.parent)
            continue
        record = path.with_name("job.json")
        settings = read_json(record) if record.is_file() else {}
        runs.append(
            Run(
                task=found["task"],
                method=found["method"],
                learning_rate=float(found["rate"]) if found["rate"] else None,
                seed=int(found["seed"]),
                folder=path.parent,
                settings=settings,
                results=read_json(path),
            )
        )
    if not runs:
        raise FinetuneError(
            f"{folder}: no finished job; expected TASK/METHOD/seed-N/all_results.json, as "
            "`python -m finetune.glue --output_dir` writes them."
        )
    return runs


def unfinished(folder: Path) -> int:
    """Jobs under `folder` that were started and have no results yet."""
    return sum(
        not path.with_name("all_results.json").is_file()
        for path in folder.glob("*/*/**/seed-*/job.json")
    )
