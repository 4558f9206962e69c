"""Checkpoints written beside the training: the loop stands still for a copy in memory, no longer.

A save has two phases. In the first, each rank's thread writes its part; in the second, rank 0's
writes state.json and renames the folder, so that a checkpoint is complete or absent. The threads
never talk to each other: the supervisor sums after each step how many ranks are done with the
phase and how many failed, and all ranks begin the next one at the same step (`advance`). If any
failed, what was written is removed, the checkpoints before stay, and the run continues.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pretrain.config import RunConfig
from pretrain.fault_tolerance.checkpoint import (
    Fragment,
    State,
    copy_into,
    layout,
    part_name,
    write_part,
)
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.fault_tolerance.upload import Uploads

logger = logging.getLogger(__name__)


class Saver:
    """One rank's side of saving; at most one save is in flight."""

    def __init__(
        self,
        run: RunFolder,
        settings: RunConfig,
        *,
        rank: int,
        num_ranks: int,
        uploads: Uploads | None = None,
        best_loss: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run = run
        self.settings = settings
        self.rank = rank
        self.num_ranks = num_ranks
        self.uploads = uploads
        """Told each complete checkpoint, on rank 0."""
        self.phase: Literal["idle", "writing", "committing"] = "idle"
        self.saved: State | None = None
        """Of the last complete checkpoint."""
        self.best_loss = best_loss
        """Lowest validation loss that a complete checkpoint holds."""
        self.stalled = 0.0
        """Seconds for which the loop stood still, so far."""
        self._buffer: Tensor | None = None
        self._outcome: bool | None = None
        """Of this rank in this phase: None while it is at work."""
        self._state: State
        self._clock = clock
        self._began = clock()

    @property
    def due(self) -> bool:
        """Whether `save_minutes` have passed since the last save began, by this rank's clock."""
        return self._clock() - self._began > 60 * self.settings.save_minutes

    def begin(self, share: list[Fragment], state: State) -> None:
        """Copy `share` and start to write it; on all ranks at the same step, none in flight."""
        assert self.phase == "idle"
        self._began = self._clock()
        began = time.monotonic()
        contents = layout(share)
        count = sum(contents.values())
        if self._buffer is None or self._buffer.numel() != count:
            self._buffer = torch.empty(count, pin_memory=torch.cuda.is_available())
        copy_into(self._buffer, share)
        self._state = state
        name = part_name(self.rank, self.num_ranks)
        buffer = self._buffer

        def write() -> None:
            self._partial.mkdir(parents=True, exist_ok=True)
            entry = write_part(self._partial / name, contents, buffer)
            (self._partial / f"{name}.json").write_text(json.dumps(entry))

        self.phase = "writing"
        self._start(write)
        self.stalled += time.monotonic() - began

    def status(self) -> tuple[float, float]:
        """(1 if this rank is done with the phase, 1 if it failed): to be summed over the ranks."""
        return float(self._outcome is True), float(self._outcome is False)

    def advance(self, done: float, failed: float) -> None:
        """Begin the next phase if all ranks are done; the same sums must come in on all ranks."""
        if self.phase == "idle" or done + failed < self.num_ranks:
            return
        if failed:
            if self.rank == 0:
                shutil.rmtree(self._partial, ignore_errors=True)
                logger.warning(
                    "step %d is not saved; checkpoints before it stay, and the run continues",
                    self._step,
                )
            self._end()
        elif self.phase == "writing":
            self.phase = "committing"
            self._outcome = True
            if self.rank == 0:
                self._start(self._commit)
        else:
            self.saved = self._state
            if self.saved.valid_loss is not None and math.isfinite(self.saved.valid_loss):
                self.best_loss = min(self.best_loss, self.saved.valid_loss)
            self._end()

    def wait(self, sum_over_ranks: Callable[[Sequence[float]], list[float]]) -> None:
        """Until nothing is in flight; collective."""
        began = time.monotonic()
        while self.phase != "idle":
            self.advance(*sum_over_ranks(list(self.status())))
            time.sleep(0.01)
        self.stalled += time.monotonic() - began

    @property
    def _step(self) -> int:
        return self._state.progress.step

    @property
    def _final(self) -> Path:
        return self.run.checkpoints / f"step-{self._step:08d}"

    @property
    def _partial(self) -> Path:
        return self.run.checkpoints / f".step-{self._step:08d}.partial"

    def _end(self) -> None:
        self.phase, self._outcome = "idle", None

    def _start(self, work: Callable[[], None]) -> None:
        self._outcome = None

        def guarded() -> None:
            try:
                work()
            except Exception as error:  # whatever it is must reach the loop, not end this thread
                logger.warning(
                    "rank %d could not save step %d in %s (%s: %s)",
                    self.rank,
                    self._step,
                    self.run.checkpoints,
                    type(error).__name__,
                    error,
                )
                self._outcome = False
            else:
                self._outcome = True

        threading.Thread(target=guarded, name="saver", daemon=True).start()

    def _commit(self) -> None:
        """Rank 0, when all parts are there: state.json, fsync, rename; then remove old ones."""
        parts: dict[str, Any] = {}
        for rank in range(self.num_ranks):
            name = part_name(rank, self.num_ranks)
            entry = self._partial / f"{name}.json"
            parts[name] = json.loads(entry.read_text())
            entry.unlink()
        self._state.parts = parts
        self._state.write(self._partial / "state.json")
        _fsync(self._partial)
        if self._final.exists():  # the same step, reached again
            replaced = self._final.with_name(f".{self._final.name}.replaced")
            self._final.replace(replaced)
            self._partial.replace(self._final)
            shutil.rmtree(replaced)
        else:
            self._partial.replace(self._final)
        _fsync(self._final.parent)
        logger.info("saved %s", self._final)
        uploading = None
        if self.uploads:
            self.uploads.begin()
            uploading = self.uploads.uploading
        try:
            self.run.prune(self.settings, uploading)
        except OSError as error:  # what was saved is saved
            logger.warning("an old checkpoint can't be removed, the run continues: %s", error)


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
