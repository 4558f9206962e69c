"""All pieces of a run in one file, so that a worker needn't open a file for each chunk.

A document's number is its position among the documents of all pieces in their order. Pieces form
groups of neighbours. What later stages keep by hash (signatures, tokens) is one file for each
group and not for each piece: every part of the hash space reads from every file, and shards and
pieces both grow with the corpus. There are at most GROUPS of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipelineError
from pipeline.store import pieces, work
from pipeline.store.folder import Folder

NAME = f"{work.WORK}/pieces.npy"
GROUPS = 4096
PIECE = np.dtype(
    [("chunk", "u4"), ("number", "u4"), ("first", "u8"), ("documents", "u8"), ("text_bytes", "u8")]
)


@dataclass(frozen=True)
class Catalog:
    """PIECE [pieces], in their order; `first` is the number of a piece's first document."""

    array: np.ndarray

    @classmethod
    def load(cls, folder: Folder) -> Catalog:
        """As `write` has left it. Raises PipelineError when it is missing."""
        try:
            return cls(folder.load(NAME))
        except FileNotFoundError:
            raise PipelineError(
                f"{folder.path(NAME)}: missing; remove {folder.path(work.WORK)} and run the same "
                "command again, which does its work again"
            ) from None

    def __len__(self) -> int:
        return len(self.array)

    @property
    def documents(self) -> int:
        """Of all pieces."""
        return int(self.array["documents"].sum())

    def name(self, piece: int) -> str:
        """Of a piece's files."""
        return pieces.piece_name(int(self.array["chunk"][piece]), int(self.array["number"][piece]))

    def first(self, piece: int) -> np.uint64:
        """Number of a piece's first document."""
        return np.uint64(self.array["first"][piece])

    def numbers(self, piece: int) -> slice:
        """Of a piece's documents."""
        first = int(self.array["first"][piece])
        return slice(first, first + int(self.array["documents"][piece]))

    def position(self, number: int) -> tuple[str, int]:
        """Piece and ordinal of a document."""
        piece = int(np.searchsorted(self.array["first"], np.uint64(number), "right")) - 1
        return self.name(piece), number - int(self.array["first"][piece])

    @property
    def groups(self) -> int:
        """How many groups the pieces form: a function of the input, not of the workers."""
        return min(len(self), GROUPS)

    def group(self, group: int) -> range:
        """The pieces of a group."""
        return range(
            group * len(self) // self.groups,
            (group + 1) * len(self) // self.groups,
        )


def write(folder: Folder, chunks: int) -> int:
    """Write the catalog of these chunks' pieces; their number."""
    rows = list(_rows(folder, chunks))
    folder.write(NAME, work.array_bytes(np.array(rows, PIECE)))
    return len(rows)


def _rows(folder: Folder, chunks: int) -> Iterator[tuple[int, ...]]:
    first = 0
    for chunk in range(chunks):
        for number, name in enumerate(pieces.read_done(folder, chunk)["pieces"]):
            receipt = pieces.piece_receipt(folder, name)
            yield chunk, number, first, receipt["documents"], receipt["text_bytes"]
            first += receipt["documents"]


def exists(folder: Folder) -> bool:
    """Whether it has been written."""
    return folder.exists(NAME)
