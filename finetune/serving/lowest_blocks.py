"""The blocks below all masks, computed once for all the tasks of a text.

Masks leave the lowest blocks as they are (`blocks` of MaskConfig), so there every task computes the
same from the same text. The first task's outputs are kept and given to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from finetune.errors import FinetuneError
from finetune.masks.architectures import Blocks, find_blocks
from finetune.masks.identity import is_under


class LowestBlocks:
    """The blocks of `base`, each of which can give the output of an earlier forward pass again."""

    def __init__(self, base: nn.Module) -> None:
        self._blocks: Blocks | None = None
        with suppress(FinetuneError):  # of a model where nothing is repeated
            self._blocks = find_blocks(base)
        self._below = 0
        self._replays = False
        self._kept: dict[str, list[Any]] = {}
        self._turns: dict[str, int] = {}
        for stem in self._blocks.stems if self._blocks else ():
            for number, block in enumerate(base.get_submodule(stem).children()):
                block.forward = self._around(f"{stem}.{number}", number, block.forward)

    def unmasked(self, names: Iterable[str]) -> int:
        """How many of the lowest blocks lie below all of these layers; 0 if that can't be told."""
        if self._blocks is None:
            return 0
        lowest = self._blocks.depth
        for name in names:
            if is_under(name, ["pooler"]):  # follows the blocks wherever there is one
                continue
            place = self._blocks.place(name)
            if place is None:
                return 0
            lowest = min(lowest, place[0])
        return lowest

    def keep(self, below: int) -> None:
        """In the next forward pass keep the outputs of the `below` lowest blocks."""
        self._kept.clear()
        self._below = below
        self._replays = False

    def replay(self, below: int) -> None:
        """In the next one take those of the `below` lowest blocks from what was kept."""
        self._turns.clear()
        self._below = below
        self._replays = True

    def forget(self) -> None:
        """Compute everything again."""
        self.keep(below=0)

    def _around(self, name: str, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """`forward` of a block, which ALBERT calls several times in a pass."""

        def kept_or_computed(*args: Any, **kwargs: Any) -> Any:
            if number >= self._below:
                return forward(*args, **kwargs)
            if self._replays:
                turn = self._turns.get(name, 0)
                self._turns[name] = turn + 1
                return _copied(self._kept[name][turn])
            output = forward(*args, **kwargs)
            self._kept.setdefault(name, []).append(_copied(output))
            return output

        return kept_or_computed


def _copied(output: Any) -> Any:
    """A block's output in memory of its own: what follows may change it in place."""
    if isinstance(output, torch.Tensor):
        return output.clone()
    if type(output) in (tuple, list):
        return type(output)(map(_copied, output))
    return output
