"""How long a command may still take, and processes that end when it is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.tiny_run import ROOT

END_SECONDS = 5.0  # for the last records and the report
SAVE_SECONDS = 8.0  # for a training run to write its checkpoint after SIGTERM


class TimeLimit:
    """A point in time; never waited for, only asked."""

    def __init__(self, seconds: float, *, keep: float = END_SECONDS) -> None:
        """In `seconds` from now, less what is kept for the end."""
        self._end = time.monotonic() + max(0.0, seconds - keep)

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._end - time.monotonic())

    def share(self, share: float, at_most: float = float("inf")) -> TimeLimit:
        """A limit for a part: this share of what is left."""
        return TimeLimit(min(share * self.left, at_most), keep=0.0)


def start(command: Sequence[object], log: Path) -> subprocess.Popen[bytes]:
    """`python COMMAND` from the repository, in a session of its own; `log` is appended to."""
    path = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)}
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run(
    command: Sequence[object], log: Path, limit: TimeLimit, *, stop_seconds: float = 0.0
) -> int | None:
    """Start and wait; returns the exit code, or None where the limit came first.

    Args:
        command: of the Python interpreter.
        log: what it says.
        limit: when it must have ended.
        stop_seconds: how long before that it is asked to stop by itself.
    """
    process = start(command, log)
    try:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(max(0.1, limit.left - stop_seconds))
        if stop_seconds:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                return process.wait(max(0.1, limit.left))
        return None
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """The process and all of its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
