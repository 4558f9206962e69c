"""TERM, INT, USR1 and USR2 ask a run to save and end; a second one ends it at once.

Python's own handlers run between two steps of the interpreter, so a rank that waits for the others
hears a signal when they have answered. A launcher often hands on what the terminal or Slurm has
sent to everyone already: a second signal within `SAME_SECONDS` is taken for the first.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from types import FrameType

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
SAME_SECONDS = 2.0


class StopFlag:
    """Set by the first signal to stop, or when the hours of this start are over."""

    def __init__(self, hours: float | None) -> None:
        """`hours` from now; None: no limit."""
        self._asked: float | None = None
        self._until = time.monotonic() + 3600 * hours if hours else math.inf
        for number in STOP_SIGNALS:
            signal.signal(number, self._request)

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self._asked is not None

    @property
    def time_is_up(self) -> bool:
        """Whether the hours are over."""
        return time.monotonic() > self._until

    def _request(self, number: int, _frame: FrameType | None) -> None:
        if self._asked is None:
            self._asked = time.monotonic()
            logger.warning(
                "%s: saving after this step; a second one ends at once",
                signal.Signals(number).name,
            )
        elif time.monotonic() - self._asked > SAME_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
