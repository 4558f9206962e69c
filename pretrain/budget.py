"""When a run ends and how far it has come; every schedule is a function of their ratio."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pretrain.errors import require


@dataclass(kw_only=True)
class BudgetConfig:
    """When the run ends: at whichever of these comes first."""

    steps: int | None = None
    """Optimizer steps."""
    tokens: float | None = None
    """Tokens read (sequences x length; masked tokens count)."""
    flops: float | None = None
    """Floating-point operations of forward and backward passes, as `python -m pretrain.flops`."""
    hours: float | None = None
    """Hours of training, over all restarts."""

    def __post_init__(self) -> None:
        given = {key: value for key, value in asdict(self).items() if value is not None}
        require(bool(given), "no budget: set one or more of budget.steps, tokens, flops, hours")
        for key, value in given.items():
            require(value > 0, f"budget.{key} is {value}; it must be positive")


@dataclass
class Progress:
    """How far a run has come, over all its restarts; saved with every checkpoint."""

    step: int = 0
    """Optimizer steps, skipped ones included."""
    sequences: int = 0
    """Sequences read: the position of the loader."""
    tokens: int = 0
    flops: float = 0.0
    hours: float = 0.0
    skipped: int = 0
    """Steps that changed nothing (`fault_tolerance/faults.py`), all in all."""
    skipped_in_row: int = 0
    """Of these, the ones since the last step that was taken."""
    rollbacks: int = 0
    """Times that the run went back to a checkpoint."""

    def advance(self, *, sequences: int, tokens: int, flops: float) -> None:
        """Count one step."""
        self.step += 1
        self.sequences += sequences
        self.tokens += tokens
        self.flops += flops

    def count_outcome(self, *, skipped: bool) -> None:
        """Whether the step just counted changed the weights."""
        self.skipped += skipped
        self.skipped_in_row = self.skipped_in_row + 1 if skipped else 0

    def fraction(self, budget: BudgetConfig) -> float:
        """Share of the budget that is used, 0 to 1; the limit that is nearest counts."""
        return min(1.0, max(self._shares(budget).values()))

    def nearest_limit(self, budget: BudgetConfig) -> str:
        """Which of the budget's limits ends the run, for logs: `budget.hours 0.5`."""
        shares = self._shares(budget)
        key = max(shares, key=lambda key: shares[key])
        return f"budget.{key} {getattr(budget, key):g}"

    def _shares(self, budget: BudgetConfig) -> dict[str, float]:
        used = {
            "steps": self.step,
            "tokens": self.tokens,
            "flops": self.flops,
            "hours": self.hours,
        }
        limits = {key: limit for key, limit in asdict(budget).items() if limit is not None}
        return {key: used[key] / limit for key, limit in limits.items()}
