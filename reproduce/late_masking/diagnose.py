"""What [MASK]s do inside an encoder: rank of its states, attention that they get, gradients.

- Effective rank of each layer's states (Meng et al. 2023, *Representation Deficiency in Masked
  Language Modeling*: with [MASK]s in the early layers a part of the width is spent on them, and
  lost to text without any). Here exp of the entropy of the normalised singular values (Roy &
  Vetterli 2007), of the visible tokens' states, with the variant's [MASK]s at 15 %, and without.
- Attention: of what visible tokens give in a layer, the share that goes to [MASK]s, over the share
  of [MASK]s among the keys: 1 is what indifference gives, 0 where no [MASK] is there.
- Gradients: norm over a layer's parameters of the training loss's, at the variant's corruption.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.evaluate import SEED, evaluation_masking
from pretrain.export import load
from pretrain.masking import MaskedBatch, mask_sequences
from pretrain.model import LateMaskModel
from reproduce.late_masking.experiment import Run

SEQUENCES = 128


def effective_rank(states: Tensor) -> float:
    """exp(H(p)) with p the singular values of `states` [n, h] over their sum: from 1 to h."""
    values = torch.linalg.svdvals(states.double())
    shares = values / values.sum()
    return math.exp(-torch.xlogy(shares, shares).sum().item())


def diagnose(run: Run) -> list[dict[str, Any]]:
    """One record a layer and measure: {variant, seed, measure, input, layer, value}.

    Layer 0 is the embedding, layers above L are the late ones.
    """
    config = load_config(run.folder / "config.yaml")
    data = ShardFolder(config.data.path)
    model = load(run.model).eval()
    sequences = data.sequences("valid")
    sequence_ids = np.arange(min(SEQUENCES, len(sequences)))

    def corrupt(masking: Any) -> MaskedBatch:
        return mask_sequences(
            sequences[sequence_ids],
            sequence_ids,
            masking=masking,
            vocabulary=data.vocabulary,
            seed=SEED,
            epoch=0,
        )

    found: list[tuple[str, str, int, float]] = []
    frozen = corrupt(evaluation_masking(model.masking))
    with torch.no_grad():
        visible, places = frozen.input_ids.shape[1], frozen.position_ids.shape[1]
        with recorded(model) as (states, attention):
            # All places as predicted ones: in training the last layer computes no others.
            ids, positions, _ = map(torch.from_numpy, frozen)
            model.predicted_states(ids, positions, places)
        found += [
            ("rank", "with [MASK]s", layer, rank_of(hidden[:, :visible]))
            for layer, hidden in enumerate(finished(model, states))
        ]
        found += [
            ("attention", "with [MASK]s", layer, share_to_masks(probabilities, visible))
            for layer, probabilities in enumerate(attention, start=1)
        ]
        with recorded(model) as (states, _):
            model.encode(torch.from_numpy(sequences[sequence_ids]))
        found += [
            ("rank", "without", layer, rank_of(hidden))
            for layer, hidden in enumerate(finished(model, states))
        ]
    batch = corrupt(model.masking)
    output = model(*map(torch.from_numpy, batch))
    (output.loss_sum / batch.labels.size).backward()
    parts: list[nn.Module] = [model.word_embeddings, *model.layers, *model.late_layers]
    found += [("gradient", "training", layer, norm_of(part)) for layer, part in enumerate(parts)]
    return [
        {
            "variant": run.variant,
            "seed": run.seed,
            "measure": m,
            "input": i,
            "layer": layer,
            "value": v,
        }
        for m, i, layer, v in found
    ]


def finished(model: LateMaskModel, states: list[Tensor]) -> list[Tensor]:
    """The same with the encoder's last norm on layer L, as finetuning gets it."""
    depth = len(model.layers)
    normed = model.final_norm(states[depth])
    return [*states[:depth], normed, *states[depth + 1 :]]


def rank_of(hidden: Tensor) -> float:
    """Effective rank of all tokens' states in [B, T, h]."""
    return effective_rank(hidden.flatten(0, 1))


def share_to_masks(probabilities: Tensor, visible: int) -> float:
    """Attention [B, heads, T, T] from visible positions to masked ones, over the share of those."""
    masked = probabilities.shape[-1] - visible
    if masked == 0:
        return 0.0
    given = probabilities[..., :visible, visible:].sum(dim=-1).mean().item()
    return given / (masked / probabilities.shape[-1])


def norm_of(module: nn.Module) -> float:
    """Of the gradients of all its parameters."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


@contextmanager
def recorded(model: LateMaskModel) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """The states behind the embedding and each layer, and each layer's self-attention.

    Yields two lists that a forward pass fills: [B, T, h] states, [B, heads, T, T] probabilities.
    Not for `cross_queries: masked`, whose late layers have no visible tokens.
    """
    states: list[Tensor] = []
    attention: list[Tensor] = []
    layers: list[Any] = [*model.layers, *model.late_layers]
    embed = model.embed

    def embed_and_keep(*arguments: Tensor) -> Tensor:
        states.append(embed(*arguments))
        return states[-1]

    def attend_and_keep(
        layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        q, k = (x.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2) for x in (query, key))
        if query.shape == key.shape:  # not a late layer's cross-attention, which meets no [MASK]
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(~mask, -math.inf)
            attention.append(scores.softmax(dim=-1))
        attended: Tensor = type(layer)._attend(layer, query, key, value, mask)
        return attended

    handles = [
        layer.register_forward_hook(lambda _, __, output: states.append(output)) for layer in layers
    ]
    model.embed = embed_and_keep  # type: ignore[method-assign,assignment]
    for layer in layers:
        layer._attend = functools.partial(attend_and_keep, layer)
    try:
        yield states, attention
    finally:
        del model.embed
        for layer in layers:
            del layer._attend
        for handle in handles:
            handle.remove()
