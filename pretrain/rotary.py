"""Rotary positions (Su et al. 2021, RoFormer): attention that depends on the distance of tokens.

Each pair of a head's dimensions is turned by its position times a frequency, so that products of
queries and keys see the distance alone. ModernBERT knows positions by this alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
