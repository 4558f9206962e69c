"""Parameter groups, AdamW and Muon, and the schedule as a pure function of progress."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from pretrain.config import BudgetConfig, OptimizerConfig


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


def learning_rate(config: OptimizerConfig, fraction: float) -> float:
    """Linear warm-up from 0 to `lr` over the first `warmup` of the budget, then linear to 0."""
    if fraction < config.warmup:
        return config.lr * fraction / config.warmup
    return config.lr * (1 - fraction) / (1 - config.warmup)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices and word embeddings; none on biases, norms, positions, vectors.

    Muon's group, where it is asked for, are the matrices of the layers. Each group's `lr_scale`
    is its learning rate as a multiple of the schedule's.
    """
    named = list(model.named_parameters())

    def decays(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim >= 2 and not name.startswith("position_embeddings")

    def muons(name: str, parameter: nn.Parameter) -> bool:
        inside = name.startswith(("layers.", "late_layers."))
        return config.name == "muon" and parameter.ndim == 2 and inside

    muon = [p for n, p in named if muons(n, p)]
    matrices = [p for n, p in named if decays(n, p) and not muons(n, p)]
    vectors = [p for n, p in named if not decays(n, p)]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay, "lr_scale": 1.0},
        {"params": vectors, "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    if muon:
        groups.append(
            {
                "params": muon,
                "weight_decay": config.weight_decay,
                "lr_scale": config.muon_lr / config.lr,
            }
        )
    return groups


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
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

    *others, muon = groups
    for group in others:
        group |= adam | {"use_muon": False}
    muon |= {"momentum": config.muon_momentum, "use_muon": True}
    for group in groups:
        group["lr"] = config.lr * group["lr_scale"]
        for parameter in group["params"]:
            parameter.use_muon = group["use_muon"]  # where ZeRO looks
    return MuonWithAuxAdam(groups, torch.optim.AdamW, {"fused": True, **adam})
