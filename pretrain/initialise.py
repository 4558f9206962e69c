"""Initial weights, with two starts that shorten the plateau at the unigram distribution.

A masked LM first learns token frequencies, and then for long nothing more. Both options only
choose where ordinary RoBERTa weights start; training is free to change them.

- `unigram_bias`: the head's bias starts at the log frequencies of the training tokens, so the
  first thing to learn is context.
- `position_init: sinusoidal`: the position table starts as sines and cosines with frequencies
  spread over (0, pi), as much power as the tokens have, so that neighbours are told apart at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pretrain.model import PADDING_IDX, LateMaskModel

QUIET_HEAD = 0.3  # of 0.3 and 1, the better after 0.4 million tokens of docstrings


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
    nn.init.zeros_(model.word_embeddings.weight[config.pieces :])  # padding, see MlmHead
    if not config.tie_word_embeddings:
        nn.init.normal_(model.head.decoder, std=embedding_std, generator=generator)
    nn.init.normal_(model.position_embeddings.weight, std=embedding_std, generator=generator)
    if model.masking.mask_embedding == "separate":
        nn.init.normal_(model.mask_embedding, std=embedding_std, generator=generator)
    with torch.no_grad():
        if config.position_init == "sinusoidal":
            table = sinusoids(config.max_position_embeddings, config.hidden_size)
            # sqrt(2): as much power as the tokens, so that neither drowns the other.
            model.position_embeddings.weight.copy_(table * math.sqrt(2) * embedding_std)
        model.position_embeddings.weight[PADDING_IDX].zero_()
        if config.unigram_bias:
            if log_frequencies is None:
                raise ValueError("model.unigram_bias needs log_frequencies")
            model.head.bias[: config.pieces] = log_frequencies
            # The random part of the first logits would only add noise to these.
            model.head.norm.weight.fill_(QUIET_HEAD)


def frequencies(hidden_size: int) -> Tensor:
    """[h / 2] angular frequencies in (0, pi), a low-discrepancy spread."""
    golden = (math.sqrt(5) - 1) / 2
    return math.pi * ((torch.arange(1, hidden_size // 2 + 1, dtype=torch.float64) * golden) % 1)


def sinusoids(positions: int, hidden_size: int) -> Tensor:
    """[positions, h]: sin(w_j p) and cos(w_j p) side by side for each j."""
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies(hidden_size)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()
