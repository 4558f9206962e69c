"""TERM, INT, USR1 and USR2 ask a run to save and end; a second one ends it at once.

Python's own handlers run between two steps of the interpreter, so a rank that waits for the others
notices a signal when they have answered. A launcher often hands on what the terminal or Slurm has
sent to everyone already: a second signal within `SAME_SECONDS` is taken for the first.
"""

from __future__ import annotations

import logging
import signal
import time
from types import FrameType

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
SAME_SECONDS = 2.0


class StopSignal:
    """Set by the first signal to stop."""

    def __init__(self) -> None:
        self._received_at: float | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._receive)

    @property
    def received(self) -> bool:
        """Whether this process was asked to stop."""
        return self._received_at is not None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._received_at is None:
            self._received_at = time.monotonic()
            logger.warning(
                "%s: saving after this step; a second one ends at once",
                signal.Signals(number).name,
            )
        elif time.monotonic() - self._received_at > SAME_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
