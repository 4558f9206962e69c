"""Initial weights, and two starts that shorten the plateau at the unigram distribution.

A masked LM first learns token frequencies, and then for long nothing more: to use a neighbour's
identity, some head must first learn to find the neighbour by position. Both parts can be had at
the start, as ordinary RoBERTa weights that training is free to change:

- `unigram_bias`: the head's bias starts at the log frequencies of the training tokens;
- `position_init: sinusoidal` with `neighbour_attention`: position p starts as the sines and
  cosines of w_j p with w_j spread over (0, pi), and the keys of a head for offset o as the
  queries' projection turned by w_j o, so that its scores sum_j cos(w_j (p_key - p_query - o))
  peak at the o-th neighbour. This is done in the layers that meet tokens they have not seen yet:
  the first, and the one where the [MASK]s enter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pretrain.model import PADDING_IDX, Block, LateMaskModel

PEAK_SCORE = 6.0  # of a neighbour head: e^6 against the e^0 of about 100 other positions


def initialise(model: LateMaskModel, seed: int, log_frequencies: Tensor | None = None) -> None:
    """Draw all weights of `model` anew; the same seed gives the same weights.

    Args:
        model: its `config` says how.
        seed: of the draws.
        log_frequencies: [V] for `unigram_bias`.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    for module in model.modules():
        if isinstance(module, nn.Linear):
            std = config.initializer_range or 1 / math.sqrt(module.in_features)
            nn.init.normal_(module.weight, std=std, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    embedding_std = config.initializer_range or 0.5 / math.sqrt(config.hidden_size)
    nn.init.normal_(model.word_embeddings.weight, std=embedding_std, generator=generator)
    nn.init.normal_(model.position_embeddings.weight, std=embedding_std, generator=generator)
    if model.masking.mask_embedding == "separate":
        nn.init.normal_(model.mask_embedding, std=embedding_std, generator=generator)
    with torch.no_grad():
        if config.position_init == "sinusoidal":
            table = sinusoids(config.max_position_embeddings, config.hidden_size)
            # sqrt(2): as much power as the tokens, so that neither drowns the other.
            model.position_embeddings.weight.copy_(table * math.sqrt(2) * embedding_std)
        model.position_embeddings.weight[PADDING_IDX].zero_()
        if config.neighbour_attention:
            for index in {0, model.masking.insert_layer}:
                attend_to_neighbours([*model.layers, *model.late_layers][index])
        if config.unigram_bias:
            if log_frequencies is None:
                raise ValueError("model.unigram_bias needs log_frequencies")
            model.head.bias.copy_(log_frequencies)


def frequencies(hidden_size: int) -> Tensor:
    """[h / 2] angular frequencies w_j in (0, pi): a low-discrepancy spread, so that any 16 of them
    in a row already tell all neighbours apart.
    """
    golden = (math.sqrt(5) - 1) / 2
    return math.pi * ((torch.arange(1, hidden_size // 2 + 1, dtype=torch.float64) * golden) % 1)


def sinusoids(positions: int, hidden_size: int) -> Tensor:
    """[positions, h]: sin(w_j p) and cos(w_j p) side by side for each j."""
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies(hidden_size)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def attend_to_neighbours(block: Block) -> None:
    """Point the heads of `block` at offsets -1, +1, -2, +2, ...; the last quarter stays random."""
    h = block.qkv.in_features
    head_size = h // block.num_heads
    pairs = head_size // 2
    # Tokens and positions have equal power before the norm, so a sine's amplitude after it is 1.
    gain = math.sqrt(PEAK_SCORE * math.sqrt(head_size) / pairs)
    omega = frequencies(h)
    for head in range(block.num_heads - block.num_heads // 4):
        offset = (head // 2 + 1) * (-1 if head % 2 == 0 else 1)
        query = torch.zeros(head_size, h, dtype=torch.float64)
        key = torch.zeros(head_size, h, dtype=torch.float64)
        for j in range(pairs):
            source = (head * pairs + j) % (h // 2)
            sine, cosine = 2 * source, 2 * source + 1
            angle = float(omega[source]) * offset
            query[2 * j, sine] = query[2 * j + 1, cosine] = gain
            # The key of position p is the query of position p - offset.
            key[2 * j, sine], key[2 * j, cosine] = gain * math.cos(angle), -gain * math.sin(angle)
            key[2 * j + 1, sine], key[2 * j + 1, cosine] = (
                gain * math.sin(angle),
                gain * math.cos(angle),
            )
        rows = slice(head * head_size, (head + 1) * head_size)
        block.qkv.weight[rows] = query.to(block.qkv.weight)
        block.qkv.weight[h + rows.start : h + rows.stop] = key.to(block.qkv.weight)
