"""The sparsity figure against the runs' own files and a count of zeros; its rule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.masks.folder import MaskFolder
from reproduce.weight_masks.command import main
from reproduce.weight_masks.sparsity import conclude


def test_figure(flags: list[str], tmp_path: Path, read: Callable, result: Callable) -> None:
    command = ["sparsity", *flags, "--task_name", "library", "--max_steps", "4"]
    command += ["--initial_sparsity", "0.5", "0.05", "--output_dir", str(tmp_path)]
    main(command)
    rows, finding = read(tmp_path / "sparsity")
    assert [(r["initial_sparsity"], r["seed"]) for r in rows] == [
        *(("0.05", "1"), ("0.05", "2"), ("0.5", "1"), ("0.5", "2")),
    ]
    for row in rows:
        folder = tmp_path / f"runs-sparsity/{row['initial_sparsity']}/library/mask"
        folder /= f"seed-{row['seed']}"
        assert float(row["score"]) == pytest.approx(result(folder)["eval_accuracy"], abs=1e-5)
        bits = np.concatenate([mask.ravel() for _, mask in MaskFolder.open(folder).masks()])
        assert float(row["final_sparsity"]) == pytest.approx(1 - bits.mean(), abs=1e-5)
        assert abs(1 - bits.mean() - float(row["initial_sparsity"])) < 0.1
    assert "roberta, 2 blocks" in finding["setting"]
    stamps = {
        p: p.stat().st_mtime_ns for p in (tmp_path / "runs-sparsity").rglob("all_results.json")
    }
    main(command)
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps} and len(stamps) == 4


def rows(scores: dict[float, list[float]]) -> list[dict[str, Any]]:
    return [
        {"task": "t", "initial_sparsity": share, "seed": seed, "score": score}
        for share, values in scores.items()
        for seed, score in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({0.05: [0.8, 0.82], 0.3: [0.81, 0.8], 0.95: [0.5, 0.51]}, "agrees"),
        ({0.05: [0.8, 0.8], 0.3: [0.9, 0.9], 0.95: [0.5, 0.5]}, "disagrees"),  # best at 30 %
        ({0.05: [0.8, 0.6], 0.95: [0.7, 0.5]}, "disagrees"),  # lower, but within the spread
        ({0.3: [0.8, 0.8], 0.95: [0.5, 0.5]}, "undecided"),  # no small share
        ({0.05: [0.8], 0.95: [0.5]}, "undecided"),  # one seed
    ],
)
def test_rule(scores: dict[float, list[float]], expected: str) -> None:
    assert conclude(rows(scores), "").verdict == expected
