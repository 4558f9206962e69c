"""Probes on planted states, and the matrix of a figure."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reproduce.weight_masks.command import main
from reproduce.weight_masks.crossdata import conclude, draw, probe
from reproduce.weight_masks.runs import obtain


class Planted(nn.Module):
    """Its first state is the second token, one-hot, which is the class in `library`; or nothing."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0 if blind else 1.0))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        states = nn.functional.one_hot(input_ids[:, 1:2], 15) * self.scale
        return SimpleNamespace(last_hidden_state=states)


def test_a_probe_finds_what_is_planted(runs: Path, flags: list[str], tmp_path: Path) -> None:
    found = obtain([*flags, "--task_name", "library"], ["mask"], runs, tmp_path)
    encoded = found.rows("library")
    assert probe(Planted(), encoded, found, 60, 0) == 1.0  # type: ignore[arg-type]
    train, dev = encoded.train.targets, encoded.dev[""].targets
    assert train is not None and dev is not None
    majority = np.bincount(train).argmax()
    blind = probe(Planted(blind=True), encoded, found, 2000, 0)  # type: ignore[arg-type]
    assert blind == pytest.approx(np.mean(dev == majority))


def test_the_title_is_not_cut() -> None:
    encoders = [("pretrained", "pretrained"), ("trec", "mask")]
    rows = [
        {"source": source, "method": method, "target": target, "score": 0.5}
        for source, method in encoders
        for target in ("trec", "sst2")
    ]
    figure = draw(rows)
    figure.draw_without_rendering()
    extent = figure.axes[0].title.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width


def test_figure(runs: Path, flags: list[str], tmp_path: Path, read: Callable) -> None:
    command = ["crossdata", *flags, "--runs", str(runs), "--output_dir", str(tmp_path)]
    main(command)
    rows, finding = read(tmp_path / "crossdata")
    tasks = ("library", "rte")
    expected = {("pretrained", "pretrained", target, "1") for target in tasks}
    expected |= set(product(tasks, ("finetune", "mask"), tasks, ("1", "2")))
    assert {(r["source"], r["method"], r["target"], r["seed"]) for r in rows} == expected
    assert "4 pairs" in finding["ours"] and len(list((tmp_path / "parts").iterdir())) == 18


@pytest.mark.parametrize(
    ("loss", "expected"), [(0.0, "agrees"), (0.05, "disagrees"), (-0.05, "agrees")]
)
def test_rule(loss: float, expected: str) -> None:
    draw = np.random.default_rng(0)
    rows = [
        {"source": "pretrained", "method": "pretrained", "target": t, "seed": 1, "score": 0.5}
        for t in "ab"
    ]
    rows += [
        {
            "source": source,
            "method": method,
            "target": target,
            "seed": seed,
            "score": 0.8 - loss * (method == "mask") + 0.001 * draw.normal(),
        }
        for source, method, target, seed in product("ab", ("finetune", "mask"), "ab", range(4))
    ]
    assert conclude(rows, "").verdict == expected
