"""Path ends reproduce both runs' scores; the barrier by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproduce.weight_masks.command import main
from reproduce.weight_masks.connectivity import barrier, conclude


def test_figure(
    runs: Path, flags: list[str], tmp_path: Path, read: Callable, result: Callable
) -> None:
    command = ["connectivity", *flags, "--runs", str(runs), "--output_dir", str(tmp_path)]
    command += ["--points", "3", "--start", "-0.25", "--stop", "1.25", "--bend_steps", "5"]
    main([*command, "--bend_learning_rate", "0.01"])
    rows, finding = read(tmp_path / "connectivity")
    assert {r["g"] for r in rows} == {"-0.25", "0", "0.5", "1", "1.25"}
    assert len(rows) == 2 * 2 * 2 * 5  # tasks, seeds, paths, places
    found = {(r["task"], r["seed"], r["path"], r["g"]): r for r in rows}
    for task in ("library", "rte"):
        for seed in ("1", "2"):
            for g, method in (("0", "mask"), ("1", "finetune")):
                expected = result(runs / task / method / f"seed-{seed}")
                for path in ("line", "bezier"):
                    row = found[task, seed, path, g]
                    assert float(row["score"]) == pytest.approx(expected["eval_accuracy"], abs=1e-5)
                    assert float(row["loss"]) == pytest.approx(expected["eval_loss"], rel=1e-4)
            middle = [found[task, seed, path, "0.5"]["loss"] for path in ("line", "bezier")]
            assert middle[0] != middle[1]  # the bend has moved
    assert "barrier of the line" in finding["ours"]
    parts = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").iterdir()}
    main([*command, "--bend_learning_rate", "0.02"])
    again = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").iterdir()}
    assert again.items() > parts.items() and len(again) == 4 + 4 + 4  # lines are kept


def path_rows(scores: dict[float, float], path: str = "line") -> list[dict[str, Any]]:
    return [
        {"task": "t", "seed": 1, "path": path, "g": g, "score": score, "loss": 0.0}
        for g, score in scores.items()
    ]


def test_barrier_is_between_the_ends() -> None:
    assert barrier(path_rows({0.0: 0.9, 0.5: 0.95, 1.0: 0.8})) == 0
    assert barrier(path_rows({0.0: 0.9, 0.5: 0.7, 1.0: 0.8})) == pytest.approx(0.1)
    walls = {-0.5: 0.1, 0.0: 0.9, 0.5: 0.85, 1.0: 0.9, 1.5: 0.1}
    assert barrier(path_rows(walls)) == pytest.approx(0.05)


@pytest.mark.parametrize(("middle", "expected"), [(0.89, "agrees"), (0.8, "disagrees")])
def test_rule(middle: float, expected: str) -> None:
    rows = path_rows({0.0: 0.9, 0.5: middle, 1.0: 0.9})
    rows += path_rows({0.0: 0.9, 0.5: 0.1, 1.0: 0.9}, "bezier")
    assert conclude(rows, "").verdict == expected
