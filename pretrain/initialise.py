"""Initial weights, with starts that shorten the plateau at the unigram distribution.

A masked LM first learns token frequencies, and then for long nothing more. The options only
choose where ordinary weights start; training is free to change them.

- `unigram_bias`: the head's bias starts at the log frequencies of the training tokens, so the
  first thing to learn is context.
- `position_init: sinusoidal`: the position table starts as sines and cosines with frequencies
  spread over (0, pi), as much power as the tokens have, so that neighbours are told apart at once.
- `position_init: neighbours`: a [MASK] knows nothing but its position, and with random weights no
  head finds the position beside it. Here the table has lower frequencies, and in every layer a
  head's keys read its share of these as they are, and its queries turn them, so that head 0 looks
  one position back, head 1 one ahead, head 2 two back, and so on; rotary late layers do the same
  with biases.
  Sublayers start with no output, so that this holds at whatever layer the [MASK]s enter.

With [MASK]s after several layers the plateau still lasted. `optimizer.lower_warmup` shortens it, as
lower rates for those layers did, though not with every seed; 100/0/0 instead of 80/10/10 does so
with all that were tried, and rotary late layers most of all (docs/reproduction.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pretrain.layers import Block, CrossBlock
from pretrain.model import LateMaskModel
from pretrain.rotary import HIGHEST_FREQUENCY, spread_frequencies

QUIET_HEAD = 0.3  # of 0.3 and 1, the better after 0.4 million tokens of docstrings
# From single runs of 4 x 64 models for a minute of one core, frequencies spread evenly.
SHARPNESS = 3.0  # of a head's logits; 2 was as good for vanilla, 2 and 4 worse for late [MASK]s


def initialise(model: LateMaskModel, seed: int, log_frequencies: Tensor | None = None) -> None:
    """Draw all weights of `model`; the same seed gives the same weights.

    Args:
        model: its `config` says how.
        seed: of the draws.
        log_frequencies: [V] for `unigram_bias`.
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
        _draw_positions(model, embedding_std, generator)
    if architecture.has_token_types:
        weight = model.get_parameter("token_type_embeddings.weight")
        architecture.draw(weight, embedding_std, generator)
        if config.position_init != "normal":
            # What all tokens have in common would blur the positions.
            with torch.no_grad():
                weight[0].zero_()
    if model.masking.mask_embedding == "separate":
        architecture.draw(model.mask_embedding, embedding_std, generator)
    if config.unigram_bias:
        if log_frequencies is None:
            raise ValueError("model.unigram_bias needs log_frequencies")
        with torch.no_grad():
            model.head.bias[: config.known_vocab_size] = log_frequencies
            # The random part of the first logits would only add noise to these.
            model.head.norm.weight.fill_(QUIET_HEAD)


def _draw_positions(model: LateMaskModel, embedding_std: float, generator: torch.Generator) -> None:
    """The table of positions, and what `position_init` makes of it."""
    config, padding = model.config, model.architecture.padding_position
    weight = model.get_parameter("position_embeddings.weight")
    model.architecture.draw(weight, embedding_std, generator)
    with torch.no_grad():
        if config.position_init != "normal":
            near = config.position_init == "neighbours"
            highest = HIGHEST_FREQUENCY if near else math.pi
            frequencies = spread_frequencies(config.hidden_size // 2, highest)
            table = _sinusoids(config.max_position_embeddings, frequencies)
            # sqrt(2): as much power as the tokens, so that neither drowns the other.
            weight.copy_(table * math.sqrt(2) * embedding_std)
            if near:
                _look_at_neighbours(model, frequencies)
        if padding is not None:
            weight[padding].zero_()


def _offsets(num_heads: int) -> list[int]:
    """Where each head looks at the start, in positions from its own: -1, 1, -2, 2, …"""
    return [(1 + head // 2) * (1 if head % 2 else -1) for head in range(num_heads)]


def _look_at_neighbours(model: LateMaskModel, frequencies: Tensor) -> None:
    h = model.config.hidden_size
    query, key = _query_and_key(frequencies, model.config.num_attention_heads)
    rotary = set(model.late_layers) if model.masking.late_positions == "rotary" else set()
    for block in model.modules():
        if isinstance(block, Block):
            if block in rotary:
                block.qkv.weight[: 2 * h] = 0.0
                block.qkv.bias[: 2 * h] = _rotary_biases(h, model.config.num_attention_heads)
            else:
                block.qkv.weight[: 2 * h] = torch.cat([query, key])
            block.attention_output.weight.zero_()
            block.output.weight.zero_()
        if isinstance(block, CrossBlock):
            block.cross_query.weight.copy_(query)
            block.cross_key_value.weight[:h] = key
            block.cross_output.weight.zero_()


def _query_and_key(frequencies: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """[h, h] weights whose heads' products peak where the key's place is the query's + offset.

    The key reads the table as it is. The query turns each pair (sin w p, cos w p) by w * offset,
    which is the pair of the place it looks for; the product of two pairs is the cosine of w times
    their distance, and the sum over a head's frequencies is largest where that is 0.
    """
    pairs = len(frequencies)
    offset = torch.tensor(_offsets(num_heads)).repeat_interleave(pairs // num_heads)
    angle = (frequencies * offset).float()
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], -1)
    query = torch.block_diag(*turn.view(pairs, 2, 2))
    return SHARPNESS * query, torch.eye(2 * pairs)


def _rotary_biases(hidden_size: int, num_heads: int) -> Tensor:
    """[2 h] biases of queries and keys whose products, turned, peak at each head's offset.

    All keys are (1, 0) in every pair, all queries stand at w * offset: what is turned by positions
    meets where they differ by the offset.
    """
    pairs = hidden_size // num_heads // 2
    frequencies = spread_frequencies(pairs, HIGHEST_FREQUENCY)
    angle = torch.tensor(_offsets(num_heads))[:, None] * frequencies
    query = SHARPNESS * torch.cat([angle.cos(), angle.sin()], dim=-1)
    key = torch.cat([torch.ones_like(angle), torch.zeros_like(angle)], dim=-1)
    return torch.cat([query.flatten(), key.flatten()]).float()


def _sinusoids(positions: int, frequencies: Tensor) -> Tensor:
    """[positions, h]: sin(w_j p) and cos(w_j p) side by side for each j."""
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()
