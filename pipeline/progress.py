"""How far a run is: bars on a terminal, a log line now and then elsewhere.

Runners tell of an element at their end only, so a thread looks for the files that are finished.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

Progress = Callable[[str, int, int, str], None]  # step, done, total, what has been done in numbers
Facts = Callable[[Path], dict[str, int]]  # of a finished file: documents, bytes, tokens

log = logging.getLogger(__name__)


def progress_display(every_seconds: float = 10) -> Progress:
    """A function to call as often as one likes with (step, done, total, numbers)."""
    return _bars() if sys.stderr.isatty() else _lines(every_seconds)


@contextmanager
def watched(step: str, targets: list[Path], progress: Progress, facts: Facts) -> Iterator[None]:
    """Tell every second how many of `targets` are there, and the sums of their facts."""
    ended = threading.Event()
    waiting = set(targets)
    totals: Counter[str] = Counter()
    start = time.monotonic()
    before: Counter[str] = Counter()  # what a run before this one has done

    def look() -> None:
        for path in [path for path in waiting if path.exists()]:
            waiting.discard(path)
            totals.update(facts(path))
        progress(step, len(targets) - len(waiting), len(targets), numbers())

    def numbers() -> str:
        seconds = max(time.monotonic() - start, 1e-3)
        parts = []
        for key, unit, scale in (
            ("documents", "documents", 1),
            ("bytes", "MB", 1e6),
            ("tokens", "tokens", 1),
        ):
            if totals[key]:
                rate = (totals[key] - before[key]) / scale / seconds
                parts.append(
                    f"{totals[key] / scale:,.0f} {unit} ({rate:,.{1 if scale > 1 else 0}f}/s)"
                )
        return ", ".join(parts)

    def watch() -> None:
        while not ended.wait(1):
            look()

    look()
    before.update(totals)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    look()
    log.info("%s: %d files, %s, %.1f s", step, len(targets), numbers(), time.monotonic() - start)


def _bars() -> Progress:
    bars: dict[str, tqdm] = {}

    def show(step: str, done: int, total: int, numbers: str) -> None:
        if step not in bars:
            bars[step] = tqdm(desc=step, total=total, dynamic_ncols=True)
        bars[step].set_postfix_str(numbers, refresh=False)
        bars[step].update(done - bars[step].n)
        if done == total:
            bars[step].close()

    return show


def _lines(every_seconds: float) -> Progress:
    started: dict[str, tuple[float, int]] = {}
    told = 0.0

    def show(step: str, done: int, total: int, numbers: str) -> None:
        nonlocal told
        now = time.monotonic()
        start, before = started.setdefault(step, (now, done))
        if now - max(told, start) >= every_seconds:
            told = now
            left = (now - start) / (done - before) * (total - done) if done > before else 0
            eta = f", about {left:,.0f} s left" if left else ""
            log.info("%s: %d of %d%s%s", step, done, total, f", {numbers}" if numbers else "", eta)

    return show
