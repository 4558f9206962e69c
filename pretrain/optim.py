"""Parameter groups, AdamW and Muon, and the schedule as a pure function of progress."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import nn

from pretrain.config import BudgetConfig, OptimizerConfig
from pretrain.model import LateMaskModel

FULL_RATE_LAYERS = 2  # enough to learn what stands beside a token


@dataclass
class Progress:
    """How far a run has come, over all its restarts; saved with every checkpoint."""

    step: int = 0  # optimizer steps
    sequences: int = 0  # rows consumed: the position of the loader
    tokens: int = 0
    flops: float = 0.0
    hours: float = 0.0
    skipped: int = 0  # steps that changed nothing (faults.py), all in all
    skipped_in_row: int = 0  # and at the end
    rollbacks: int = 0  # times that the run went back to a checkpoint

    def advance(self, rows: int, tokens: int, flops: float, *, skipped: bool) -> None:
        """Count one step."""
        self.step += 1
        self.sequences += rows
        self.tokens += tokens
        self.flops += flops
        self.skipped += skipped
        self.skipped_in_row = self.skipped_in_row + 1 if skipped else 0

    def fraction(self, budget: BudgetConfig) -> float:
        """Share of the budget that is used, 0 to 1; the limit that is nearest counts."""
        used = {
            "steps": self.step,
            "tokens": self.tokens,
            "flops": self.flops,
            "hours": self.hours,
        }
        limits = {key: limit for key, limit in asdict(budget).items() if limit is not None}
        return min(1.0, max(used[key] / limit for key, limit in limits.items()))


class Rates(NamedTuple):
    """The learning rates of one step."""

    full: float
    lower: float  # of all layers but the last two, where these warm up by themselves


def learning_rates(config: OptimizerConfig, fraction: float) -> Rates:
    """Linear warm-up from 0 to `lr` over the first `warmup` of the budget, then linear to 0.

    The lower layers' is this times the square of a ramp from 0 to 1 over the first `lower_warmup`:
    a straight ramp was too quick for [MASK]s after 8 layers (docs/reproduction.md, Trials).
    """
    if fraction < config.warmup:
        rate = config.lr * fraction / config.warmup
    else:
        rate = config.lr * (1 - fraction) / (1 - config.warmup)
    ramp = fraction / config.lower_warmup if fraction < config.lower_warmup else 1.0
    return Rates(full=rate, lower=rate * ramp**2)


def parameter_groups(model: LateMaskModel, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices and word embeddings; none on biases, norms, positions, vectors.

    Muon's groups, where it is asked for, are the matrices of the layers. Each group says which of
    `Rates` it takes, times its `lr_scale`. With `lower_warmup` all layers but the last two, late
    layers counted, are groups of their own.
    """
    lower: set[int] = set()
    if config.lower_warmup:
        layers = [*model.layers, *model.late_layers][:-FULL_RATE_LAYERS]
        lower = {id(p) for layer in layers for p in layer.parameters()}
    members: dict[tuple[bool, bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        inside = name.startswith(("layers.", "late_layers."))
        muon = config.name == "muon" and parameter.ndim == 2 and inside
        decays = parameter.ndim >= 2 and not name.startswith("position_embeddings")
        members[muon, id(parameter) in lower, not decays].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if plain else config.weight_decay,
            "lr_scale": config.muon_lr / config.lr if muon else 1.0,
            "rate": "lower" if is_lower else "full",
            "use_muon": muon,
        }
        for (muon, is_lower, plain), parameters in sorted(members.items(), key=itemgetter(0))
    ]


def make_optimizer(model: LateMaskModel, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Fused AdamW over `parameter_groups`, or DeepSpeed's Muon beside it.

    torch's own Muon takes matrices only, and ZeRO leaves it flat stretches of them; DeepSpeed's
    puts them together for the update, under every stage.
    """
    groups = parameter_groups(model, config)
    adam = {"betas": config.betas, "eps": config.eps}
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True, **adam)  # type: ignore[arg-type]
    # Imported here, since this compiles its kernels.
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    for group in groups:
        group |= {"momentum": config.muon_momentum} if group["use_muon"] else adam
        group["lr"] = config.lr * group["lr_scale"]
        for parameter in group["params"]:
            parameter.use_muon = group["use_muon"]  # where ZeRO looks
    return MuonWithAuxAdam(groups, torch.optim.AdamW, {"fused": True, **adam})
