"""The token ids of a data set: how many there are, and which are special."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PARTS = ("cls", "sep", "pad", "unk", "mask")


@dataclass(frozen=True)
class Vocabulary:
    """Ids below `size`; `cls` begins a sequence, `sep` ends it and every document in it."""

    size: int
    cls: int
    sep: int
    pad: int
    unk: int
    mask: int

    @classmethod
    def robertas(cls, size: int) -> Vocabulary:
        """<s> 0, <pad> 1, </s> 2, <unk> 3, <mask> last: of tokenizers that the pipeline trains."""
        return cls(size=size, cls=0, sep=2, pad=1, unk=3, mask=size - 1)

    @property
    def special(self) -> list[int]:
        """The ids that are never predicted and replace no other."""
        return [getattr(self, part) for part in PARTS]

    @cached_property
    def is_special(self) -> NDArray[np.bool_]:
        """[V] which ids are special."""
        marks = np.zeros(self.size, dtype=np.bool_)
        marks[self.special] = True
        return marks

    @cached_property
    def ordinary(self) -> NDArray[np.int64]:
        """[V - 5] all others, from which random replacements are drawn."""
        return np.flatnonzero(~self.is_special)
