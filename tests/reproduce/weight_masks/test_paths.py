"""Lines and Bézier curves by their formulas; the bend that a toy loss is known to want."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from finetune.errors import FinetuneError
from reproduce.weight_masks.paths import Bezier, Segment, Training, require_same_shape, train_bend
from reproduce.weight_masks.runs import obtain

DRAW = torch.Generator().manual_seed(0)
A, B, C = ({"w": torch.randn(3, 2, generator=DRAW), "b": torch.randn(2)} for _ in range(3))


def test_ends_are_exact() -> None:
    for path in (Segment(A, C), Bezier(A, B, C)):
        for name in A:
            assert torch.equal(path(0.0)[name], A[name])
            assert torch.equal(path(1.0)[name], C[name])


@pytest.mark.parametrize("g", [-0.25, 0.1, 0.5, 0.9, 1.25])
def test_formulas(g: float) -> None:
    a, b, c = (place["w"].double().numpy() for place in (A, B, C))
    np.testing.assert_allclose(Segment(A, C)(g)["w"], a + g * (c - a), atol=1e-6)
    curve = (1 - g) ** 2 * a + 2 * g * (1 - g) * b + g**2 * c
    np.testing.assert_allclose(Bezier(A, B, C)(g)["w"], curve, atol=1e-6)
    # With its bend in the middle the curve is the line.
    middle = Bezier(A, Segment(A, C)(0.5), C)
    np.testing.assert_allclose(middle(g)["w"], Segment(A, C)(g)["w"], atol=1e-6)


class Toy(nn.Module):
    """Loss (w - 1)²: with both ends at 0, E_g (2 g (1 - g) b - 1)² is least at b = 5 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, **batch: torch.Tensor) -> Any:
        assert batch["labels"].shape[0] == batch["input_ids"].shape[0]
        return SimpleNamespace(loss=(self.w - 1) ** 2)


def test_bend_minimises_the_expected_loss(runs: Path, flags: list[str], tmp_path: Path) -> None:
    found = obtain([*flags, "--task_name", "library"], ["mask"], runs, tmp_path)
    zero = {"w": torch.zeros(())}
    training = Training(steps=1500, learning_rate=0.02, batch_size=4, seed=0)
    rows, backbone = found.rows("library").train, found.inputs.backbone
    curve = train_bend(Toy(), Segment(zero, zero), rows, backbone, training)  # type: ignore[arg-type]
    assert curve.bend["w"].item() == pytest.approx(2.5, abs=0.2)
    assert curve.first["w"].item() == curve.last["w"].item() == 0
    again = train_bend(Toy(), Segment(zero, zero), rows, backbone, training)  # type: ignore[arg-type]
    assert torch.equal(curve.bend["w"], again.bend["w"])


def test_points_of_other_spaces() -> None:
    require_same_shape(A, B, ("a", "b"))
    with pytest.raises(FinetuneError, match=r"between x and y: w is \[3, 2\] in one and \[4, 2\]"):
        require_same_shape(A, {"w": torch.zeros(4, 2), "b": torch.zeros(2)}, ("x", "y"))
    with pytest.raises(FinetuneError, match=r"b is \[2\] in one and None"):
        require_same_shape(A, {"w": A["w"]}, ("x", "y"))
