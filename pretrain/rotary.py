"""Rotary positions (Su et al. 2021, RoFormer): attention that depends on the distance of tokens.

Each pair of a head's dimensions is turned by its position times a frequency, so that products of
queries and keys see the distance alone. ModernBERT knows positions by this alone. The decoder
layers of the others may use it (`masking.late_positions`): they are thrown away after pretraining,
and the exported encoder stays a stock one. In the small runs made (docs/reproduction.md) the loss
fell far, and the encoder was worse: what the decoder layers find alone, it need not learn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HIGHEST_FREQUENCY = 1.5
"""Radians per place. In single runs of 4 x 64 models, for the table, 0.7 and 3.1 were worse."""


def spread_frequencies(pairs: int, highest: float, device: torch.device | None = None) -> Tensor:
    """[pairs] angular frequencies in (0, highest), a low-discrepancy spread: an even one would
    repeat after some positions."""
    golden = (math.sqrt(5) - 1) / 2
    numbers = torch.arange(1, pairs + 1, dtype=torch.float64, device=device)
    return highest * ((numbers * golden) % 1)


def angles_of(position_ids: Tensor, head_width: int) -> Tensor:
    """[B, T] positions -> [B, T, head_width / 2] angles in radians, in float32 at any precision."""
    frequencies = spread_frequencies(head_width // 2, HIGHEST_FREQUENCY, position_ids.device)
    return position_ids[..., None] * frequencies.float()


def rotary_angles(position_ids: Tensor, head_width: int, theta: float) -> Tensor:
    """[B, T] positions -> [B, T, head_width / 2] angles, in float32 at any precision.

    Frequencies fall from 1 to nearly 1 / `theta`, evenly on a logarithmic scale (transformers').
    """
    exponents = torch.arange(0, head_width, 2, device=position_ids.device).float() / head_width
    return position_ids[..., None] * (1.0 / theta**exponents)


def turn(states: Tensor, angles: Tensor) -> Tensor:
    """Turn each head's pairs (dimensions j and j + half its width), as Hugging Face pairs them.

    Args:
        states: [B, T, h] queries or keys, head by head.
        angles: [B, T, w / 2] for heads of width w.
    """
    heads = states.unflatten(-1, (-1, 2, angles.shape[-1]))
    first, second = heads.float().unbind(-2)
    cosine, sine = angles.cos()[:, :, None], angles.sin()[:, :, None]
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.stack(turned, dim=-2).flatten(2).to(states.dtype)
