"""A linear layer that many tasks share, each with its own mask over the same weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

LONGEST_STEP = 255  # that fits in a byte


class Dropped:
    """What a mask of `count` elements drops, as it is applied: quickly, and in little memory.

    Either a byte for each step from one dropped element to the next, or where they are so many that
    this takes less, a bit for every element.

    Args:
        positions: of the dropped elements, ascending.
    """

    def __init__(self, positions: np.ndarray, count: int, device: torch.device) -> None:
        gaps = np.diff(positions, prepend=0)
        stops = np.maximum(gaps - 1, 0) // LONGEST_STEP  # between two dropped elements
        size = len(gaps) + int(stops.sum())
        self._bits: np.ndarray | None = None
        self._count = count
        if size > count // 8:
            dropped = np.zeros(count, bool)
            dropped[positions] = True
            self._bits = np.packbits(dropped)
            return
        ends = np.cumsum(stops + 1) - 1
        steps = np.full(size, LONGEST_STEP, np.uint8)
        steps[ends] = gaps - LONGEST_STEP * stops
        between = np.delete(np.arange(size), ends)
        self._steps = torch.from_numpy(steps).to(device)
        self._between = torch.from_numpy(between).to(device)
        self._after = torch.from_numpy(ends[np.searchsorted(ends, between)]).to(device)

    def clear(self, elements: torch.Tensor) -> None:
        """Set the dropped ones of `elements` [count, …] to 0 in place."""
        if self._bits is not None:
            dropped = torch.from_numpy(np.unpackbits(self._bits, count=self._count).view(bool))
            elements[dropped.to(elements.device)] = 0
            return
        if elements.device.type == "cpu":
            # numpy takes half of torch's time for both. It knows no bf16, but 0 has no bits.
            positions = np.cumsum(self._steps.numpy(), dtype=np.int64)
            positions[self._between.numpy()] = positions[self._after.numpy()]
            words = elements.view(getattr(torch, f"int{8 * elements.itemsize}"))
            words.numpy()[positions] = 0
        else:
            places = torch.cumsum(self._steps, 0, dtype=torch.int64)
            places[self._between] = places[self._after]
            elements.index_fill_(0, places, 0)


@dataclass
class Turn:
    """Whose masks the layers apply, and the memory in which they do, as large as the largest."""

    task: str | None
    buffer: torch.Tensor


class ResidentLinear(nn.Module):
    """`layer`, its weight masked for the task whose turn it is, just before it is multiplied.

    The weight itself never changes: a masked copy is made in a buffer of all layers, where the
    multiplication finds it. So there is nothing to undo, and the price is a copy in every pass.
    """

    def __init__(self, layer: nn.Linear, turn: Turn) -> None:
        super().__init__()
        self.layer = layer
        self.masks: dict[str, tuple[Dropped, int]] = {}
        """By task; with each the elements of its mask, which are weights, or groups of rows."""
        self._turn = turn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] → [..., out]."""
        plain = self.layer.weight
        weight = self._masked(self._turn.buffer[: plain.numel()].view(plain.shape))
        return F.linear(x, weight, self.layer.bias)

    @property
    def weight(self) -> torch.Tensor:
        """The masked weight, for models that multiply it themselves, in memory of its own."""
        return self._masked(torch.empty_like(self.layer.weight))

    @property
    def bias(self) -> torch.Tensor | None:
        """The layer's."""
        return self.layer.bias

    @property
    def in_features(self) -> int:
        """The layer's."""
        return self.layer.in_features

    @property
    def out_features(self) -> int:
        """The layer's."""
        return self.layer.out_features

    def _masked(self, out: torch.Tensor) -> torch.Tensor:
        if self._turn.task not in self.masks:
            return self.layer.weight
        dropped, count = self.masks[self._turn.task]
        out.copy_(self.layer.weight)
        dropped.clear(elements_of(out, count))
        return out


def elements_of(weight: torch.Tensor, count: int) -> torch.Tensor:
    """`weight` [out, in] as what each bit of its mask governs: [count], or groups [count, rest]."""
    return weight.view(-1) if count == weight.numel() else weight.view(count, -1)
