"""What a run says while it goes: metrics.jsonl, TensorBoard, and a line or a bar for people."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pretrain.optim import Progress

logger = logging.getLogger(__name__)


class Metrics:
    """One rank writes; the others hold one that does nothing."""

    def __init__(self, folder: Path, *, writes: bool, start: Progress, fraction: float) -> None:
        self.writes = writes
        if not writes:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._file = _keep_up_to(folder / "metrics.jsonl", start.step)
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=start.step + 1 if start.step else None
        )
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
        record = {"step": progress.step, "tokens": progress.tokens, "flops": progress.flops}
        record |= {"hours": round(progress.hours, 6)} | values
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for key, value in values.items():
            self._board.add_scalar(key, value, progress.step)
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

    def _remaining(self, fraction: float) -> str:
        done = fraction - self._begin_fraction
        if done <= 0:
            return "?"
        seconds = (time.monotonic() - self._begin) * (1 - fraction) / done
        return str(timedelta(seconds=round(seconds)))

    def close(self) -> None:
        """Flush and close."""
        if self.writes:
            self._file.close()
            self._board.close()
            if self._bar is not None:
                self._bar.close()


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
    "valid/loss": "valid loss",
    "valid/accuracy": "valid acc",
}


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) >= 1e-2 else f"{value:.3g}"


def _keep_up_to(path: Path, step: int) -> Any:
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
    return path.open("a")
