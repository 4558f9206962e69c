"""Initial weights: normal draws, and a head that may start at the token frequencies.

Standard deviations are `model.initializer_range`, or follow the width where it is null. Word
embeddings start half as large then, so that the first logits are small beside the layers' states.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pretrain.layers import UNREACHABLE
from pretrain.model import LateMaskModel


def initialise(model: LateMaskModel, seed: int, log_frequencies: Tensor | None = None) -> None:
    """Draw all weights of `model`; the same seed gives the same weights.

    Args:
        model: its `config` says how.
        seed: of the draws.
        log_frequencies: [tokens of the data] of the training tokens, for `unigram_bias`.
    """
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
    if config.unigram_bias:
        if log_frequencies is None:
            raise ValueError("model.unigram_bias needs log_frequencies")
        with torch.no_grad():
            known = len(log_frequencies)
            model.head.bias[:known] = log_frequencies
            # Rows that the tokenizer has no token for.
            model.head.bias[known : config.known_vocab_size] = log_frequencies.min()
    # Never predicted, like the vocabulary's padding. An export for the stock forward pass may then
    # hold the [MASK] vector in this row, which the tied decoder reads, too.
    with torch.no_grad():
        model.head.bias[config.token_id("mask")] = UNREACHABLE
