"""Initial weights: normal draws.

Standard deviations are `model.initializer_range`, or follow the width where it is null. Word
embeddings start half as large then, so that the first logits are small beside the layers' states.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from pretrain.layers import UNREACHABLE
from pretrain.model import LateMaskModel


def initialise(model: LateMaskModel, seed: int) -> None:
    """Draw all weights of `model`, as its `config` says; the same seed gives the same weights."""
    generator = torch.Generator().manual_seed(seed)
    config, architecture = model.config, model.architecture
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            std = config.initializer_range or 1 / math.sqrt(module.in_features)
            scale = architecture.weight_scale(name, config)
            architecture.draw(module.weight, std * scale, generator)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)
    embedding_std = config.initializer_range or 0.5 / math.sqrt(config.hidden_size)
    architecture.draw(model.word_embeddings.weight, embedding_std, generator)
    nn.init.zeros_(model.word_embeddings.weight[config.known_vocab_size :])  # padding, see MlmHead
    if not config.tie_word_embeddings:
        architecture.draw(model.head.decoder, embedding_std, generator)
    if architecture.has_position_table:
        positions = model.get_parameter("position_embeddings.weight")
        architecture.draw(positions, embedding_std, generator)
        if architecture.padding_position is not None:
            nn.init.zeros_(positions[architecture.padding_position])
    if architecture.token_types:
        token_types = model.get_parameter("token_type_embeddings.weight")
    if architecture.token_types == 1:  # every token adds it: positions can say the same
        nn.init.zeros_(token_types)
    elif architecture.token_types:
        architecture.draw(token_types, embedding_std, generator)
    if model.masking.mask_embedding == "separate":
        architecture.draw(model.mask_embedding, embedding_std, generator)
    # Never predicted, like the vocabulary's padding. An export for the stock forward pass may then
    # hold the [MASK] vector in this row, which the tied decoder reads, too.
    with torch.no_grad():
        model.head.bias[config.token_id("mask")] = UNREACHABLE
