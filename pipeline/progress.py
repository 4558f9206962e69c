"""How far a run is: bars on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

Progress = Callable[[str, int, int], None]  # step, done, total

log = logging.getLogger(__name__)


def progress_display(every_seconds: float = 10) -> Progress:
    """A function to call as often as one likes with (step, done, total)."""
    return _bars() if sys.stderr.isatty() else _lines(every_seconds)


def _bars() -> Progress:
    bars: dict[str, tqdm] = {}

    def show(step: str, done: int, total: int) -> None:
        if step not in bars:
            bars[step] = tqdm(desc=step, total=total, dynamic_ncols=True)
        bars[step].update(done - bars[step].n)
        if done == total:
            bars[step].close()

    return show


def _lines(every_seconds: float) -> Progress:
    started: dict[str, float] = {}
    told = 0.0

    def show(step: str, done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        start = started.setdefault(step, now)
        if now - max(told, start) >= every_seconds:
            told = now
            log.info("%s: %d of %d after %.0f s", step, done, total, now - start)

    return show
