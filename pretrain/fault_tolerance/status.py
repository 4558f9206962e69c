"""What passes between the loop and its supervisor at a step, and between the ranks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from torch import Tensor

from pretrain.masking import MaskedBatch
from pretrain.recipe import MaskingConfig

if TYPE_CHECKING:
    from pretrain.engine import Engine


@dataclass(frozen=True)
class StepBatch:
    """One optimizer step's input on this rank."""

    micro_batches: list[MaskedBatch]
    size: int
    """Sequences over all ranks."""
    masking: MaskingConfig
    fraction: float
    """Share of the budget used before this step: what schedules go by."""
    dropout_seed: int
    """A function of (seed, step, rank): no state to save, the same after a resume."""


@dataclass
class RankStatus:
    """What one rank contributes after its backward pass; added up, what all ranks go by."""

    loss_sum: float | Tensor = 0.0
    correct: float | Tensor = 0.0
    num_predicted: float = 0.0
    stop_requests: float = 0.0
    hours: float = 0.0
    """Of training; rank 0's clock alone counts."""
    save_due: float = 0.0
    """By rank 0's clock."""
    saves_done: float = 0.0
    saves_failed: float = 0.0

    def all_reduce(self, engine: Engine) -> RankStatus:
        """The sum over all ranks: one collective, which waits for the device."""
        names = [field.name for field in fields(self)]
        sums = engine.sum_over_ranks([getattr(self, name) for name in names])
        return RankStatus(**dict(zip(names, sums, strict=True)))


@dataclass(frozen=True)
class Verdict:
    """What all ranks know of a step before its update."""

    loss: float
    """Mean over the predicted positions of all ranks, nats."""
    accuracy: float
    num_predicted: float
    fault: str | None
    """Why the step must change nothing; None if it may."""

    @property
    def skip(self) -> bool:
        """Whether the update must change nothing."""
        return self.fault is not None


@dataclass(frozen=True)
class Due:
    """What follows a step."""

    log: bool
    evaluate: bool
