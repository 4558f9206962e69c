"""Steps that must not count: a loss or gradient that is NaN or infinite, or a loss that jumps.

A loss is a spike when it lies `spike_sigmas` standard deviations above the mean of the last
accepted ones, as OLMo-core's SkipStepOptimizer has it. Such a step changes no weight. After
`max_skipped_steps` in a row, the run goes back to the last checkpoint before them and reads on
behind the sequences that it has seen since, as PaLM's authors did (Chowdhery et al. 2022, section
5.1).
"""

from __future__ import annotations

import math
import statistics
from collections import deque

from pretrain.errors import PretrainError
from pretrain.fault_tolerance.checkpoint import State

WINDOW = 128  # accepted losses that are remembered
ENOUGH = 32  # of them, before a spike can be told from noise


class DivergedError(PretrainError):
    """Going back did not help, as often as it was allowed."""

    exit_code = 65  # EX_DATAERR: what starting again would not fix


class LossGuard:
    """Judges each step by its loss; the same on all ranks, since the loss is.

    Losses at another masking rate or insertion layer have another level: they are forgotten where a
    stage begins, also when that is the first step after a resume.
    """

    def __init__(self, sigmas: float, resumed_from: State | None = None) -> None:
        """`resumed_from`: of the checkpoint whose losses the next steps are judged by."""
        self.sigmas = sigmas
        self.stage = resumed_from.losses_stage if resumed_from else []
        """Masking rate and insertion layer of the losses."""
        losses = resumed_from.losses if resumed_from else []
        self._losses: deque[float] = deque(losses, maxlen=WINDOW)

    def enter_stage(self, stage: list[float]) -> None:
        """The next losses are those of `stage`: masking rate and insertion layer."""
        if stage != self.stage:
            self._losses.clear()
        self.stage = stage

    def fault(self, loss: float) -> str | None:
        """Why a step with this loss must be skipped; None if it need not be."""
        if not math.isfinite(loss):
            return f"its loss is {loss}"
        if not self.sigmas or len(self._losses) < ENOUGH:
            return None
        mean = statistics.fmean(self._losses)
        limit = mean + self.sigmas * statistics.stdev(self._losses)
        if loss <= limit:
            return None
        return f"its loss is {loss:.4f}, the last {len(self._losses)} allow {limit:.4f}"

    def accept(self, loss: float) -> None:
        """Remember the loss of a step that was taken."""
        self._losses.append(loss)

    @property
    def remembered(self) -> list[float]:
        """What a checkpoint must hold, for the next steps to be judged alike."""
        return list(self._losses)
