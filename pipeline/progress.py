"""How far a run is: bars on a terminal, a log line now and then elsewhere.

Runners report an element at their end only, so a thread looks for the files that are finished.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tqdm import tqdm

from pipeline.errors import PipelineError
from pipeline.store.folder import Folder

Progress = Callable[[str, int, int, str], None]  # step, done, total, what has been done in numbers
_UNITS = {"documents": ("documents", 1, 0), "bytes": ("MB", 1e6, 1), "tokens": ("tokens", 1, 0)}

log = logging.getLogger(__name__)


class Step(NamedTuple):
    """A part of a run, and the files by which one can see how far it is."""

    name: str
    targets: Callable[[], list[str]]  # asked for when the step before is done
    facts: Callable[[str], dict[str, int]] = lambda _: {}  # documents, bytes, tokens in a target
    ended: Callable[[], None] = lambda: None  # called when all targets are there


def progress_display(every_seconds: float = 10) -> Progress:
    """A function to call as often as one likes with (step, done, total, numbers)."""
    return _bars() if sys.stderr.isatty() else _lines(every_seconds)


@contextmanager
def watched(folder: Folder, steps: list[Step], progress: Progress) -> Iterator[None]:
    """Report every few seconds how many targets of the step at hand are there, and their facts."""
    ended = threading.Event()

    def watch() -> None:
        try:
            for step in steps:
                if not follow(step):
                    break
        except PipelineError as error:  # the run itself meets it, and tells
            log.debug("no progress can be shown: %s", error)

    def follow(step: Step) -> bool:
        waiting = set(step.targets())
        total = len(waiting)
        sums: Counter[str] = Counter()
        before: Counter[str] | None = None  # what a run before this one has done
        start = time.monotonic()
        while True:
            last = ended.is_set()
            looked = time.monotonic()
            for name in _found(folder, waiting):
                waiting.discard(name)
                sums.update(step.facts(name))
            before = sums.copy() if before is None else before
            seconds = time.monotonic() - start
            numbers = _numbers(sums, before, seconds)
            progress(step.name, total - len(waiting), total, numbers)
            if not waiting:
                log.info("%s: %s", step.name, f"{numbers}, {seconds:.1f} s".lstrip(", "))
                step.ended()
            if not waiting or last:
                return not waiting
            # Large folders are listed slowly, and in stores each listing is a request that costs.
            ended.wait(max(1 if folder.local else 3, 10 * (time.monotonic() - looked)))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _found(folder: Folder, names: set[str]) -> set[str]:
    """Those of the names that are there; listed, since they are many in few folders."""
    parents = {name.rpartition("/")[0] for name in names}
    return {name for parent in parents for name in folder.list(parent) if name in names}


def _numbers(sums: Counter[str], before: Counter[str], seconds: float) -> str:
    parts = []
    for key, (unit, scale, digits) in _UNITS.items():
        if sums[key]:
            number = sums[key] / scale
            shown = f"{number:,.{digits if number < 10 else 0}f} {unit}"
            rate = (sums[key] - before[key]) / scale / max(seconds, 1e-3)
            parts.append(f"{shown} ({rate:,.{digits}f}/s)" if rate >= 0.1 else shown)
    return ", ".join(parts)


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
    reported = 0.0

    def show(step: str, done: int, total: int, numbers: str) -> None:
        nonlocal reported
        now = time.monotonic()
        start, before = started.setdefault(step, (now, done))
        if now - max(reported, start) >= every_seconds:
            reported = now
            left = (now - start) / (done - before) * (total - done) if done > before else 0
            eta = f", about {left:,.0f} s left" if left else ""
            log.info("%s: %d of %d%s%s", step, done, total, f", {numbers}" if numbers else "", eta)

    return show
