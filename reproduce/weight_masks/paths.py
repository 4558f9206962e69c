"""Paths between two minima of one model, and the bend of a curved one.

A point is every parameter of the model by name, those that it computes with: W ⊙ M_bin where there
is a mask, the classifier included. Buffers (position indices) are not part of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.func import functional_call
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PreTrainedModel

from finetune.errors import FinetuneError
from finetune.tasks.encode import Backbone, Rows
from reproduce.weight_masks.forward import device

Point = dict[str, torch.Tensor]


def point(model: PreTrainedModel) -> Point:
    """Where `model` is: a copy of its parameters in fp32."""
    return {
        name: parameter.detach().float().clone().to(device())
        for name, parameter in model.named_parameters()
    }


def move(model: PreTrainedModel, place: Point) -> None:
    """Put `model` there."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(place[name])


@dataclass(frozen=True)
class Segment:
    """θ(g) = θ₀ + g (θ₁ - θ₀)."""

    first: Point
    last: Point

    def __call__(self, g: float) -> Point:
        """The point at `g`; exactly the ends at 0 and 1."""
        return {name: torch.lerp(value, self.last[name], g) for name, value in self.first.items()}


@dataclass(frozen=True)
class Bezier:
    """φ(g) = (1 - g)² θ₀ + 2 g (1 - g) θ_b + g² θ₁."""

    first: Point
    bend: Point
    last: Point

    def __call__(self, g: float) -> Point:
        """The point at `g`."""
        return {
            name: (1 - g) ** 2 * value + 2 * g * (1 - g) * self.bend[name] + g**2 * self.last[name]
            for name, value in self.first.items()
        }


def require_same_shape(first: Point, last: Point, names: tuple[str, str]) -> None:
    """FinetuneError unless both are points of one space."""
    for name in sorted(first.keys() | last.keys()):
        shapes = [list(p[name].shape) if name in p else None for p in (first, last)]
        if shapes[0] != shapes[1]:
            raise FinetuneError(
                f"No path between {names[0]} and {names[1]}: {name} is {shapes[0]} in one and "
                f"{shapes[1]} in the other. Both have to be of one backbone, task and labels."
            )


@dataclass(frozen=True)
class Training:
    """How a bend is found: Adam without decay, `steps` batches of `batch_size` rows."""

    steps: int
    learning_rate: float
    batch_size: int
    seed: int


def train_bend(
    model: PreTrainedModel, line: Segment, rows: Rows, backbone: Backbone, training: Training
) -> Bezier:
    """The curve whose bend lowers the training loss at g ~ U(0, 1), a new g for every batch.

    The bend starts in the middle of `line`; the ends stay. Dropout is on, as in any training.
    """
    torch.manual_seed(training.seed)
    bend = {name: value.requires_grad_() for name, value in line(0.5).items()}
    curve = Bezier(line.first, bend, line.last)
    optimizer = torch.optim.Adam(bend.values(), lr=training.learning_rate)
    model.to(device()).float().train()  # type: ignore[arg-type]
    for _, batch in zip(range(training.steps), _batches(rows, backbone, training), strict=False):
        place = curve(torch.rand(()).item())
        loss = functional_call(model, place, args=(), kwargs=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Bezier(line.first, {name: value.detach() for name, value in bend.items()}, line.last)


def _batches(
    rows: Rows, backbone: Backbone, training: Training
) -> Iterator[dict[str, torch.Tensor]]:
    """Shuffled batches without end, their order a function of the seed."""
    loader: DataLoader = DataLoader(
        rows,  # type: ignore[arg-type]
        training.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(training.seed),
        collate_fn=DataCollatorWithPadding(backbone.tokenizer),
    )
    while True:
        for batch in loader:
            yield {name: tensor.to(device()) for name, tensor in batch.items()}
