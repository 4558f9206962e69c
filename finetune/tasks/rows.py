"""Token rows of one split, kept flat: what the Trainer takes, a fraction of lists' memory, a file.

A row has `choices` sequences (1 but for multiple choice). Every column of sequences is one array
with all of them end to end; `offsets` [N * choices + 1] says where each begins.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np


@dataclass(frozen=True)
class Rows(Sequence[dict[str, Any]]):
    """`columns` are the tokenizer's, and for tagging `labels`; `targets` [N] is one label a row."""

    columns: dict[str, np.ndarray]
    offsets: np.ndarray
    targets: np.ndarray | None
    choices: int = 1

    @classmethod
    def pack(
        cls, columns: dict[str, list[list[int]]], targets: Sequence[float] | None, choices: int = 1
    ) -> "Rows":
        """From lists of sequences, all columns of equal lengths."""
        lengths = [len(sequence) for sequence in columns["input_ids"]]
        flat = {
            name: np.fromiter((i for s in sequences for i in s), np.int32, sum(lengths))
            for name, sequences in columns.items()
        }
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(flat, offsets, None if targets is None else np.asarray(targets), choices)

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.choices

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """A row as the collators take it: lists, nested for multiple choice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        first = index % len(self) * self.choices
        row: dict[str, Any] = {}
        for name, flat in self.columns.items():
            sequences = [
                flat[self.offsets[unit] : self.offsets[unit + 1]].tolist()
                for unit in range(first, first + self.choices)
            ]
            row[name] = sequences if self.choices > 1 else sequences[0]
        if self.targets is not None:
            row["labels"] = self.targets[index].item()
        return row

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row [N]; of the longest of its choices."""
        return np.diff(self.offsets).reshape(-1, self.choices).max(axis=1)

    def select(self, indices: Sequence[int]) -> "Rows":
        """The rows at `indices`, in that order."""
        units = [i * self.choices + c for i in indices for c in range(self.choices)]
        columns = {
            name: [flat[self.offsets[u] : self.offsets[u + 1]].tolist() for u in units]
            for name, flat in self.columns.items()
        }
        targets = None if self.targets is None else self.targets[list(indices)]
        return Rows.pack(columns, targets, self.choices)  # type: ignore[arg-type]

    def sample(self, most: int, seed: int) -> "Rows":
        """`most` of them, drawn by `seed`, in their order; all where there are no more."""
        if len(self) <= most:
            return self
        chosen = np.random.default_rng(seed).choice(len(self), most, replace=False)
        return self.select(sorted(chosen.tolist()))

    def save(self, path: Path) -> None:
        """Write an .npz, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"column_{name}": flat for name, flat in self.columns.items()}
        if self.targets is not None:
            arrays["targets"] = self.targets
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, offsets=self.offsets, choices=self.choices, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Rows":
        """What `save` wrote."""
        with np.load(path) as file:
            columns = {
                name.removeprefix("column_"): file[name]
                for name in file.files
                if name.startswith("column_")
            }
            targets = file["targets"] if "targets" in file.files else None
            return cls(columns, file["offsets"], targets, int(file["choices"]))


def by_length(rows: Rows) -> np.ndarray:
    """Order [N] in which batches hold rows of like length, longest first."""
    return np.argsort(-rows.lengths, kind="stable")
