"""What a run says while it goes: metrics.jsonl, TensorBoard, and a line or a bar for people."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from io import FileIO
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from pretrain.config import RunConfig
from pretrain.errors import PretrainError
from pretrain.optim import Progress

logger = logging.getLogger(__name__)


class Metrics:
    """One rank writes; the others hold one that does nothing.

    A disk that is full costs the records that found no room, never the run.
    """

    def __init__(
        self, folder: Path, settings: RunConfig, *, writes: bool, start: Progress, fraction: float
    ) -> None:
        self.writes = writes
        if not writes:
            return
        self._folder, self._start, self._losing = folder, start, False
        self._file = _keep_up_to(folder / "metrics.jsonl", start.step)
        self._board: Any = None
        self._tracker = _wandb_run(folder) if "wandb" in settings.report_to else None
        self._bar = (
            tqdm(total=100, initial=100 * fraction, bar_format=_BAR, leave=True)
            if sys.stderr.isatty()
            else None
        )
        self._begin, self._begin_fraction = time.monotonic(), fraction

    def log(self, progress: Progress, fraction: float, values: dict[str, float]) -> None:
        """Record `values` at this step; `fraction` of the budget is used."""
        if not self.writes:
            return
        record: dict[str, Any] = {
            "step": progress.step,
            "tokens": progress.tokens,
            "flops": progress.flops,
        }
        record |= {"hours": round(progress.hours, 6)}
        # JSON has no word for a loss of a skipped step that is no number.
        record |= {key: v if math.isfinite(v) else None for key, v in values.items()}
        try:
            self._write(progress.step, record, values)
            self._losing = False
        except OSError as error:
            if not self._losing:
                logger.warning("metrics are being lost, the run goes on: %s", error)
            self._losing = True
        if self._tracker is not None:
            self._tracker.log(record, step=progress.step)
        text = " ".join(f"{_SHORT.get(k, k)} {_number(v)}" for k, v in values.items())
        if self._bar is not None:
            self._bar.n = round(100 * fraction, 1)
            self._bar.set_postfix_str(f"step {progress.step} {text}")
        else:
            logger.info(
                "%5.1f %% step %d %s ETA %s",
                100 * fraction,
                progress.step,
                text,
                self._remaining(fraction),
            )

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
        if self._board is not None:
            with suppress(OSError):
                self._board.close()
        if self._bar is not None:
            self._bar.close()
        if self._tracker is not None:
            self._tracker.finish()


class Speed:
    """How fast it goes since the last log line, and what of the time is lost."""

    def __init__(self, progress: Progress) -> None:
        self._since = time.monotonic()
        self._tokens, self._flops = progress.tokens, progress.flops
        self._waited = self._stalled = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The loop waits for data."""
        begin = time.monotonic()
        yield
        self._waited += time.monotonic() - begin

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Something that is not training: left out."""
        begin = time.monotonic()
        yield
        self._since += time.monotonic() - begin

    def take(self, progress: Progress, stalled: float, peak: float | None) -> dict[str, float]:
        """The metrics; begins anew.

        Args:
            progress: now.
            stalled: seconds that checkpoints have cost so far.
            peak: TFLOP/s of all devices, for the MFU.
        """
        now = time.monotonic()
        seconds = now - self._since
        tflops = (progress.flops - self._flops) / seconds / 1e12
        values = {
            "speed/tokens_per_second": (progress.tokens - self._tokens) / seconds,
            "speed/tflops": tflops,
            "speed/data_wait": self._waited / seconds,
            "speed/checkpoint_stall": (stalled - self._stalled) / seconds,
        }
        if peak:
            values["speed/mfu"] = tflops / peak
        self._since, self._waited, self._stalled = now, 0.0, stalled
        self._tokens, self._flops = progress.tokens, progress.flops
        return values


def _board(folder: Path, start: Progress) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    purge = start.step + 1 if start.step else None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=purge)


def _wandb_run(folder: Path) -> Any:
    """The tracker's run, named after the folder and gone on with after a restart."""
    try:
        import wandb
    except ImportError:
        raise PretrainError(
            "run.report_to: wandb is not installed; pip install 'latemask[tracking]'"
        ) from None
    name = folder.resolve().name
    config = yaml.safe_load((folder / "config.yaml").read_text())
    return wandb.init(dir=folder, id=name, name=name, resume="allow", config=config)


_BAR = "{percentage:5.1f} % |{bar:24}| {elapsed}<{remaining} {postfix}"
_SHORT = {
    "train/loss": "loss",
    "train/accuracy": "acc",
    "train/gradient_norm": "gnorm",
    "train/lr": "lr",
    "speed/tokens_per_second": "tok/s",
    "speed/tflops": "TFLOP/s",
    "speed/data_wait": "wait",
    "speed/memory_gib": "GiB",
    "speed/mfu": "MFU",
    "speed/checkpoint_stall": "stall",
    "train/skipped_steps": "skipped",
    "valid/loss": "valid loss",
    "valid/accuracy": "valid acc",
}


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) >= 1e-2 else f"{value:.3g}"


def _keep_up_to(path: Path, step: int) -> FileIO:
    """Open for appending, without what an interrupted run wrote after its last checkpoint."""
    if path.exists():
        kept = []
        for line in path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError):
                continue  # the line that a kill cut off
        temporary = path.with_suffix(".partial")
        temporary.write_text("".join(kept))
        temporary.replace(path)
    return path.open("ab", buffering=0)


# Dense bf16, from the makers' data sheets; first match wins.
_PEAK_TFLOPS = {"B200": 2250, "GH200": 989, "H200": 989, "H100 PCIe": 756, "H100": 989,
                "A100": 312, "A800": 312, "L40S": 362, "L40": 181, "L4": 121}  # fmt: skip


def peak_tflops(settings: RunConfig, device: torch.device, precision: str) -> float | None:
    """Of one device: as configured, else of a GPU known by name; None if neither."""
    if settings.peak_tflops or device.type != "cuda" or precision != "bf16":
        return settings.peak_tflops
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in _PEAK_TFLOPS.items() if key in name), None)
