"""Rotary positions (Su et al. 2021, RoFormer): attention that depends on the distance of tokens.

Each pair of a head's dimensions is turned by its position times a frequency, so that products of
queries and keys see the distance alone. ModernBERT knows positions by this alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


def rotary_angles(position_ids: Tensor, head_width: int, theta: float) -> Tensor:
    """[B, T] positions -> [B, T, head_width / 2] angles, in float32 at any precision.

    Frequencies fall from 1 to nearly 1 / `theta`, evenly on a logarithmic scale (transformers').
    """
    exponents = torch.arange(0, head_width, 2, device=position_ids.device).float() / head_width
    return position_ids[..., None] * (1.0 / theta**exponents)


class Rotation(NamedTuple):
    """By how much the pairs of a head are turned at each position."""

    cosine: Tensor  # [B, T, 1, w / 2] for heads of width w, fp32
    sine: Tensor  # the same

    def last(self, count: int) -> Rotation:
        """Of the last `count` positions."""
        return Rotation(self.cosine[:, -count:], self.sine[:, -count:])


def rotation(position_ids: Tensor, head_width: int, theta: float) -> Rotation:
    """[B, T] positions -> what `turn` takes."""
    angles = rotary_angles(position_ids, head_width, theta)[:, :, None]
    return Rotation(angles.cos(), angles.sin())


def turn(states: Tensor, rotation: Rotation) -> Tensor:
    """Turn each head's pairs (dimensions j and j + half its width), as Hugging Face pairs them.

    Args:
        states: [B, T, n] queries or keys or both side by side, head by head.
        rotation: of their positions.
    """
    return _Turn.apply(states, rotation.cosine, rotation.sine)


class _Turn(torch.autograd.Function):
    """Keeps nothing but the rotation, and makes no copies: the gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turned(states, cosine, sine)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turned(grad, cosine, -sine), None, None


def _turned(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    heads = states.unflatten(-1, (-1, 2, cosine.shape[-1]))
    first, second = heads.float().unbind(-2)
    turned = torch.empty(heads.shape, dtype=torch.float32, device=heads.device)
    turned[..., 0, :] = torch.addcmul(first * cosine, second, sine, value=-1)
    turned[..., 1, :] = torch.addcmul(second * cosine, first, sine)
    return turned.flatten(2).to(states.dtype)
