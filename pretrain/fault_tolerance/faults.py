"""Steps that must not count: a loss or gradient that is no number, or a loss that jumps.

A loss is a spike when it lies `spike_sigmas` standard deviations above the mean of the last
accepted ones, as OLMo-core's SkipStepOptimizer has it. Such a step changes no weight. After
`max_skipped_steps` in a row, the run goes back to the last checkpoint before them and reads on
behind the rows that it has seen since, as PaLM's authors did (Chowdhery et al. 2022, section 5.1).
"""

from __future__ import annotations

import math
import statistics
from collections import deque

from pretrain.config import RunConfig
from pretrain.errors import PretrainError

WINDOW = 128  # accepted losses that are remembered
ENOUGH = 32  # of them, before a spike can be told from noise


class DivergedError(PretrainError):
    """Going back did not help, as often as it was allowed."""

    exit_code = 65  # EX_DATAERR: what starting again would not mend


class LossGuard:
    """Judges each step by its loss; the same on all ranks, since the loss is."""

    def __init__(self, config: RunConfig, losses: list[float]) -> None:
        """`losses` are those that `remembered` gave when the checkpoint was made."""
        self.sigmas = config.spike_sigmas
        self._losses: deque[float] = deque(losses, maxlen=WINDOW)

    def fault(self, loss: float) -> str | None:
        """Why a step with this loss must be skipped; None if it need not be."""
        if not math.isfinite(loss):
            return f"its loss is {loss}"
        if not self.sigmas or len(self._losses) < ENOUGH:
            return None
        mean, deviation = statistics.fmean(self._losses), statistics.stdev(self._losses)
        limit = mean + self.sigmas * deviation
        if loss <= limit:
            return None
        return f"its loss is {loss:.4f}, the last {len(self._losses)} allow {limit:.4f}"

    def accept(self, loss: float) -> None:
        """Remember the loss of a step that was taken."""
        self._losses.append(loss)

    def forget(self) -> None:
        """Losses change their level here: another masking rate, another insertion layer."""
        self._losses.clear()

    @property
    def remembered(self) -> list[float]:
        """What a checkpoint must hold, for the next steps to be judged alike."""
        return list(self._losses)
