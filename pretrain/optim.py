"""Parameter groups, and the learning rate as a pure function of progress."""

from __future__ import annotations

from collections import defaultdict
from operator import itemgetter
from typing import Any, NamedTuple

from torch import nn

from pretrain.model import LateMaskModel
from pretrain.recipe import OptimizerConfig

FULL_RATE_LAYERS = 2  # enough to learn what stands beside a token
_UNDECAYED = ("position_embeddings", "token_type_embeddings")


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
        decays = parameter.ndim >= 2 and not name.startswith(_UNDECAYED)
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
