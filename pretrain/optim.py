"""Parameter groups, and the learning rate as a pure function of progress."""

from __future__ import annotations

import math
from collections import defaultdict
from operator import itemgetter
from typing import Any

from torch import nn

from pretrain.model import LateMaskModel
from pretrain.recipe import OptimizerConfig

_UNDECAYED = ("position_embeddings", "token_type_embeddings")


def learning_rate(config: OptimizerConfig, fraction: float) -> float:
    """AdamW's rate when `fraction` of the budget is used.

    It rises linearly from 0 to `lr` over the first `warmup` of the budget. Then `linear` falls to 0
    in a straight line and `cosine` in half a cosine; `trapezoid` stays at `lr` and falls as 1 -
    sqrt(x) over the last `decay` of the budget (Hägele et al. 2024).
    """
    if fraction < config.warmup:
        return config.lr * (fraction / config.warmup)
    if config.schedule == "trapezoid":
        if fraction <= 1 - config.decay:
            return config.lr
        return config.lr * (1 - math.sqrt((fraction - (1 - config.decay)) / config.decay))
    if config.schedule == "cosine":
        angle = math.pi * (fraction - config.warmup) / (1 - config.warmup)
        return config.lr * (1 + math.cos(angle)) / 2
    return config.lr * ((1 - fraction) / (1 - config.warmup))


def parameter_groups(model: LateMaskModel, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices and word embeddings; none on biases, norms, positions, vectors.

    Muon's group, where it is asked for, are the matrices of the layers. A group's rate is
    `learning_rate` times its `lr_scale`.
    """
    members: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        inside = name.startswith(("layers.", "late_layers."))
        muon = config.name == "muon" and parameter.ndim == 2 and inside
        decays = parameter.ndim >= 2 and not name.startswith(_UNDECAYED)
        members[muon, not decays].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if plain else config.weight_decay,
            "lr_scale": config.muon_lr / config.lr if muon else 1.0,
            "use_muon": muon,
        }
        for (muon, plain), parameters in sorted(members.items(), key=itemgetter(0))
    ]
