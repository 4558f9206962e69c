"""A checkpoint on disk: what it holds, and any range of any tensor of it, whoever wrote it.

It does not depend on the number of ranks or the ZeRO stage. Each rank wrote one part: the ranges
of the flattened fp32 parameters and moments that it trained, named by parameter and first element.
A reader asks for a range of a parameter and gets it from the parts that hold it, through their
memory map, so no reader holds more than it needs. Noise and dropout need no state, since both are
functions of (seed, step).

    checkpoints/step-00001000/part-00000-of-00008.safetensors   weight/NAME@START [n] fp32,
                              …                                 exp_avg/…, exp_avg_sq/…
                              state.json   progress, shapes, size and sha256 of every part
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from pretrain.budget import BudgetConfig, Progress
from pretrain.earlier_releases import ZERO_IN_FORMER_CHECKPOINTS
from pretrain.errors import PretrainError
from pretrain.manifest import file_sha256
from pretrain.recipe import MaskingConfig

FORMAT, VERSION = "latemask-checkpoint", 2
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")  # AdamW's two, Muon's one
KINDS = ("weight", *MOMENTS)
CHUNK_BYTES = 2**24


class WeightSource(Protocol):
    """Where weights and moments are read from: a checkpoint, or the initial weights."""

    @property
    def adam_steps(self) -> int:
        """Updates made, for Adam's bias correction."""

    def kinds(self, name: str) -> list[str]:
        """What there is of parameter `name`: "weight", and moments once it was updated."""

    def read(self, kind: str, name: str, start: int, count: int) -> Tensor:
        """[count] fp32 elements, from `start` on, of the flattened `kind` of parameter `name`."""


@dataclass(frozen=True)
class Fragment:
    """A range of one flattened parameter that one rank trains."""

    name: str
    start: int
    values: dict[str, Tensor]
    """[n] fp32 by kind, views of what is trained; a moment is missing before the first update."""

    def __len__(self) -> int:
        return self.values["weight"].numel()


@dataclass
class State:
    """`state.json`: everything but the tensors."""

    progress: Progress
    shapes: dict[str, list[int]]
    """Of every parameter, by name."""
    adam_steps: int = 0
    """Updates made: the steps without the skipped ones."""
    losses: list[float] = field(default_factory=list)
    """What the next steps' losses are judged by (`faults.py`)."""
    losses_stage: list[float] = field(default_factory=list)
    """Masking rate and insertion layer of the steps that gave `losses`."""
    log_sums: dict[str, float] = field(default_factory=dict)
    """What the next log line averages, summed since the last one (`metrics.py`)."""
    valid_loss: float | None = None
    """Validation loss of these very weights, where it was measured."""
    data_sha256: str = ""
    """Of the data set's manifest.json."""
    written_by: str = ""
    """Ranks and ZeRO stage, for people."""
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """{"bytes", "sha256"} by file name."""

    def write(self, file: Path) -> None:
        """As JSON, fsynced."""
        content = {"format": FORMAT, "version": VERSION} | asdict(self)
        with file.open("w") as stream:
            json.dump(content, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())

    @classmethod
    def read(cls, file: Path) -> State:
        """Raises OSError, ValueError, KeyError or TypeError where the file is not what it was."""
        return cls.parse(file.read_bytes())

    @classmethod
    def parse(cls, raw: bytes) -> State:
        """Raises ValueError, KeyError or TypeError where this is not what was written."""
        content = json.loads(raw)
        if not isinstance(content, dict) or not isinstance(content.get("parts"), dict):
            raise ValueError("state.json is not what was written")
        found = (content.pop("format"), content.pop("version"))
        if found != (FORMAT, VERSION):
            raise ValueError(f"its format is {found}, this program reads {(FORMAT, VERSION)}")
        return cls(**content | {"progress": Progress(**content["progress"])})


DAMAGE = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    state: State

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> Checkpoint:
        """Raises one of `DAMAGE`, with what was found, where something is missing or has changed.

        Sizes are always checked; `verify` also reads every byte and compares the hashes.
        """
        checkpoint = cls(path, State.read(path / "state.json"))
        for name, part in checkpoint.state.parts.items():
            if (size := (path / name).stat().st_size) != part["bytes"]:
                raise ValueError(f"{name} has {size:,} bytes, {part['bytes']:,} were written")
        if verify:
            with ThreadPoolExecutor(8, thread_name_prefix="verify") as pool:
                hashes = pool.map(lambda name: file_sha256(path / name), checkpoint.state.parts)
                for (name, part), found in zip(checkpoint.state.parts.items(), hashes, strict=True):
                    if found != part["sha256"]:
                        raise ValueError(
                            f"{name} has sha256 {found[:16]}…, {part['sha256'][:16]}… was written"
                        )
        return checkpoint

    @property
    def progress(self) -> Progress:
        """How far the run had come."""
        return self.state.progress

    def last_masking(self, masking: MaskingConfig, budget: BudgetConfig) -> MaskingConfig:
        """The stage of `masking` in which the last step was made.

        At its boundary the next stage holds from the next step on, which there may be none of.
        """
        fraction = self.progress.fraction(budget)
        for stage in reversed(masking.stages_until(fraction)):
            if [stage.rate, float(stage.insertion_layer)] == self.state.losses_stage:
                return stage
        return masking.at(fraction)  # of earlier releases, which did not say

    @property
    def adam_steps(self) -> int:
        """Updates made, for Adam's bias correction."""
        return self.state.adam_steps

    @property
    def run_folder(self) -> Path:
        """`runs/NAME` of `runs/NAME/checkpoints/step-N`."""
        return self.path.parent.parent

    def read(self, kind: str, name: str, start: int, count: int) -> Tensor:
        """[count] elements of the flattened `kind` ("weight", "exp_avg" …) of parameter `name`."""
        if self._is_zero(name):
            return torch.zeros(count)
        ranges = []
        position = start
        for begin, end, part, key in self._index[kind, name]:
            if begin <= position < min(end, start + count):
                last = min(end, start + count)
                ranges.append(part.get_slice(key)[position - begin : last - begin])
                position = last
        if position != start + count:
            raise ValueError(f"{self.path}: {kind} of {name} ends at element {position}")
        return ranges[0] if len(ranges) == 1 else torch.cat(ranges)

    def kinds(self, name: str) -> list[str]:
        """What there is of parameter `name`: its weights, and moments once it was updated."""
        if self._is_zero(name):
            return ["weight"]
        return [kind for kind in KINDS if (kind, name) in self._index]

    def _is_zero(self, name: str) -> bool:
        return name in ZERO_IN_FORMER_CHECKPOINTS and name not in self.state.shapes

    def tensors(self, kind: str = "weight") -> Iterator[tuple[str, Tensor]]:
        """Every parameter's name and its full weights or moments, one after the other."""
        for name, shape in self.state.shapes.items():
            yield name, self.read(kind, name, 0, math.prod(shape)).reshape(shape)

    def weights(self) -> dict[str, Tensor]:
        """Full fp32 weights by parameter name."""
        return dict(self.tensors())

    @torch.no_grad()
    def load_into(self, model: nn.Module) -> None:
        """Copy the weights into `model`, one parameter at a time.

        Raises:
            PretrainError: the model has other parameters, or other shapes.
        """
        parameters = dict(model.named_parameters())
        shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
        saved = {name: shape for name, shape in shapes.items() if self._is_zero(name)}
        saved |= self.state.shapes
        if shapes != saved:
            other = [name for name in shapes | saved if shapes.get(name) != saved.get(name)]
            raise PretrainError(
                f"{self.path} is of another model: {other[0]} has shape "
                f"{saved.get(other[0])} there, {shapes.get(other[0])} in this config"
            )
        for name, parameter in parameters.items():
            parameter.copy_(self.read("weight", name, 0, parameter.numel()).view_as(parameter))

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[tuple[int, int, Any, str]]]:
        """The ranges of each kind and parameter in order: begin, end, open part, key."""
        index: dict[tuple[str, str], list[tuple[int, int, Any, str]]] = {}
        for file in self.state.parts:
            part = safe_open(self.path / file, framework="pt")
            for key in part.keys():  # noqa: SIM118 - no dict
                kind, _, rest = key.partition("/")
                name, _, start = rest.rpartition("@")
                (count,) = part.get_slice(key).get_shape()
                entry = (int(start), int(start) + count, part, key)
                index.setdefault((kind, name), []).append(entry)
        for entries in index.values():
            entries.sort(key=lambda entry: entry[0])
        return index


def layout(share: list[Fragment]) -> dict[str, int]:
    """`KIND/NAME@START` to number of elements: what a part of a checkpoint holds, in order."""
    return {f"{kind}/{f.name}@{f.start}": len(f) for f in share for kind in f.values}


def copy_into(buffer: Tensor, share: list[Fragment]) -> None:
    """Copy everything that `layout` names into `buffer` on the host, and wait for it."""
    position = 0
    for fragment in share:
        for value in fragment.values.values():
            buffer[position : position + len(fragment)].copy_(value, non_blocking=True)
            position += len(fragment)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def part_name(rank: int, num_ranks: int) -> str:
    """The file that `rank` writes."""
    return f"part-{rank:05d}-of-{num_ranks:05d}.safetensors"


def write_part(file: Path, layout: dict[str, int], values: Tensor) -> dict[str, Any]:
    """Write one part, fsync it, and return its `parts` entry.

    safetensors' own writer would copy everything and hold the interpreter's lock meanwhile; here
    the training loop continues, since writing and hashing happen outside of it.

    Args:
        file: to be written.
        layout: `KIND/NAME@START` to number of elements, in the order in which `values` has them.
        values: [sum of the layout] fp32 on the CPU.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key, count in layout.items():
        end = offset + 4 * count
        header[key] = {"dtype": "F32", "shape": [count], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content: NDArray[np.uint8] = values.numpy().view(np.uint8)
    chunks = [memoryview(len(text).to_bytes(8, "little") + text)]
    chunks += [content[i : i + CHUNK_BYTES].data for i in range(0, len(content), CHUNK_BYTES)]
    digest = hashlib.sha256()
    with file.open("wb", buffering=0) as stream:
        for chunk in chunks:
            digest.update(chunk)
            while chunk:
                chunk = chunk[stream.write(chunk) :]
        os.fsync(stream.fileno())
        size = stream.tell()
    return {"bytes": size, "sha256": digest.hexdigest()}
