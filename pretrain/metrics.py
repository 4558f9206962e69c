"""What a run says while it goes: metrics.jsonl, TensorBoard, and a line or a bar for people."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import uuid
from contextlib import suppress
from datetime import timedelta
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tqdm import tqdm

from pretrain.budget import Progress
from pretrain.config import RunConfig
from pretrain.errors import PretrainError
from pretrain.timing import Speed

if TYPE_CHECKING:
    from pretrain.fault_tolerance.status import Verdict

logger = logging.getLogger(__name__)


class Recorder:
    """What a run says of its steps. Rank 0's writes; the others' only keep the sums.

    A disk that is full costs the records that found no room, never the run.
    """

    def __init__(
        self,
        folder: Path,
        settings: RunConfig,
        *,
        writes: bool,
        start: Progress,
        fraction: float,
        sums: dict[str, float] | None = None,
        peak_tflops: float | None = None,
    ) -> None:
        """Continue where a run stands.

        Args:
            folder: the run's.
            settings: trackers.
            writes: whether this is rank 0's.
            start: how far the run has come; later records are those of an interrupted start.
            fraction: of the budget that is used.
            sums: what the checkpoint holds of them.
            peak_tflops: of all devices, for the MFU.
        """
        self.writes = writes
        self.sums = dict(sums or {})
        """Of the steps since the last line."""
        self.speed = Speed(start)
        self._peak_tflops = peak_tflops
        self._folder = folder
        self._start = start
        self._losing = False
        self._board: Any = None
        if not writes:
            return
        self._file = _keep_up_to(folder / "metrics.jsonl", start.step)
        self._tracker = _wandb_run(folder) if "wandb" in settings.report_to else None
        self._bar = (
            tqdm(total=100, initial=100 * fraction, bar_format=_BAR, leave=True)
            if sys.stderr.isatty()
            else None
        )
        self._begin = time.monotonic()
        self._begin_fraction = fraction

    def add_step(self, verdict: Verdict) -> None:
        """Count a step in the means of the next line, unless its loss is NaN or infinite."""
        if math.isfinite(verdict.loss):
            count = verdict.num_predicted
            self._add("loss", verdict.loss * count)
            self._add("accuracy", verdict.accuracy * count)
            self._add("num_predicted", count)

    def _add(self, key: str, value: float) -> None:
        self.sums[key] = self.sums.get(key, 0.0) + value

    def log_steps(
        self, progress: Progress, fraction: float, values: dict[str, float], stalled: float
    ) -> None:
        """A line: means over the steps since the last one, `values`, and the speed.

        Args:
            progress: now.
            fraction: share of the budget that is used.
            values: of the last step.
            stalled: seconds that checkpoints have cost so far.
        """
        count = self.sums.get("num_predicted", 0.0)
        means = {
            f"train/{key}": self.sums[key] / count if count else math.nan
            for key in ("loss", "accuracy")
        }
        self.sums = {}
        speed = self.speed.take(progress, stalled, self._peak_tflops)
        self.log(progress, fraction, means | values | speed)

    def log(self, progress: Progress, fraction: float, values: dict[str, float]) -> None:
        """Record `values` at this step; `fraction` of the budget is used."""
        if not self.writes:
            return
        record: dict[str, Any] = {
            "step": progress.step,
            "tokens": progress.tokens,
            "flops": progress.flops,
            "hours": round(progress.hours, 6),
        }
        # JSON has no word for NaN.
        record |= {key: v if math.isfinite(v) else None for key, v in values.items()}
        try:
            self._write(progress.step, record, values)
            self._losing = False
        except OSError as error:
            if not self._losing:
                logger.warning("metrics are being lost, the run continues: %s", error)
            self._losing = True
        if self._tracker is not None:
            self._tracker.log(record, step=progress.step)
        shown = [
            f"{_SHORT[key]} {_number(value)}"
            for key, value in values.items()
            if key in _SHORT and (key not in _SHOWN_FROM or value >= _SHOWN_FROM[key])
        ]
        text = " | ".join([f"step {progress.step:,}", *shown])
        if self._bar is not None:
            self._bar.n = round(100 * fraction, 1)
            self._bar.set_postfix_str(text)
        else:
            remaining = self._remaining(fraction)
            logger.info("%5.1f%% | %s | ETA %s", 100 * fraction, text, remaining)

    def rewind(self, progress: Progress, fraction: float, sums: dict[str, float]) -> None:
        """Go back with the run: what was recorded after `progress` is forgotten."""
        self.sums = dict(sums)
        self.speed = Speed(progress)
        self._start = progress
        if not self.writes:
            return
        self._file.close()
        self._file = _keep_up_to(self._folder / "metrics.jsonl", progress.step)
        self._close_board()
        self._begin = time.monotonic()
        self._begin_fraction = fraction

    def _write(self, step: int, record: dict[str, Any], values: dict[str, float]) -> None:
        end = self._file.tell()
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
        except OSError:
            self._file.truncate(end)  # no half line
            self._file.seek(end)
            raise
        try:
            if self._board is None:
                self._board = _board(self._folder, self._start)
            for key, value in values.items():
                self._board.add_scalar(key, value, step)
        except OSError:
            self._board = None  # its thread is dead: a new file, once there is room
            raise

    def _remaining(self, fraction: float) -> str:
        done = fraction - self._begin_fraction
        if done <= 0:
            return "?"
        seconds = (time.monotonic() - self._begin) * (1 - fraction) / done
        return str(timedelta(seconds=round(seconds)))

    def close(self) -> None:
        """Flush and close."""
        if not self.writes:
            return
        self._file.close()
        self._close_board()
        if self._bar is not None:
            self._bar.close()
        if self._tracker is not None:
            self._tracker.finish()

    def _close_board(self) -> None:
        if self._board is not None:
            with suppress(OSError):
                self._board.close()
        self._board = None


def _board(folder: Path, start: Progress) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    purge = start.step + 1 if start.step else None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=purge)


def _wandb_run(folder: Path) -> Any:
    """The tracker's run: named after the folder, resumed by an id of its own after a restart."""
    try:
        import wandb
    except ImportError:
        raise PretrainError(
            "run.report_to: wandb is not installed; pip install 'latemask[tracking]'"
        ) from None
    # Folders of one name in two places are two runs.
    file = folder / "wandb_id"
    if not file.exists():
        file.write_text(uuid.uuid4().hex)
    return wandb.init(
        dir=folder,
        id=file.read_text().strip(),
        name=folder.resolve().name,
        resume="allow",
        config=yaml.safe_load((folder / "config.yaml").read_text()),
    )


_BAR = "{percentage:5.1f} % |{bar:12}| {remaining} left | {postfix}"
# As much as fits 100 columns; metrics.jsonl and TensorBoard have the rest.
_SHORT = {
    "train/loss": "loss",
    "train/lr": "lr",
    "speed/tokens_per_second": "tok/s",
    "speed/mfu": "MFU",
    "speed/data_wait": "wait",
    "speed/checkpoint_stall": "stall",
    "train/skipped_steps": "skipped",
    "valid/loss": "valid loss",
    "valid/accuracy": "valid acc",
}
# What is as it should be needs no room in the line.
_SHOWN_FROM = {
    "speed/data_wait": 0.01,
    "speed/checkpoint_stall": 0.01,
    "train/skipped_steps": 1,
}


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f}M"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) >= 1e-2 else f"{value:.3g}"


def _keep_up_to(path: Path, step: int) -> FileIO:
    """Open for appending, without what an interrupted run wrote after its last checkpoint."""
    if path.exists():
        kept = []
        for line in path.read_text(errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill or a power failure
        temporary = path.with_suffix(".partial")
        temporary.write_text("".join(kept))
        temporary.replace(path)
    return path.open("ab", buffering=0)
