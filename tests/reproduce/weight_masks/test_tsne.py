"""The t-SNE figure: three maps of the same dev sentences, from finished runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.errors import FinetuneError
from reproduce.weight_masks.command import main
from reproduce.weight_masks.tsne import conclude, separation


def test_figure(runs: Path, flags: list[str], tmp_path: Path, read: Callable) -> None:
    command = ["tsne", *flags, "--runs", str(runs), "--output_dir", str(tmp_path)]
    main([*command, "--task_name", "library", "--max_points", "35"])
    rows, finding = read(tmp_path / "tsne")
    assert len(rows) == 3 * 35 and "library: neighbours of the own class" in finding["ours"]
    panels = {panel: [r for r in rows if r["panel"] == panel] for panel in ("pretrained", "mask")}
    assert [r["label"] for r in panels["mask"]] == [r["label"] for r in panels["pretrained"]]
    parts = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").iterdir()}
    main([*command, "--task_name", "library", "--max_points", "35"])
    assert parts == {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").iterdir()}
    assert len(parts) == 3 and rows == read(tmp_path / "tsne")[0]


def test_too_few_points(runs: Path, flags: list[str], tmp_path: Path) -> None:
    command = ["tsne", *flags, "--runs", str(runs), "--output_dir", str(tmp_path)]
    with pytest.raises(FinetuneError, match="library: 30 sentences; t-SNE"):
        main([*command, "--max_points", "30"])


def made_up(spread: float, panel: str) -> list[dict[str, Any]]:
    """Two classes of 40 points, two units apart."""
    draw = np.random.default_rng(0)
    return [
        {
            "task": "t",
            "panel": panel,
            "label": str(label),
            "x": 2 * label + spread * draw.normal(),
            "y": spread * draw.normal(),
        }
        for label in (0, 1)
        for _ in range(40)
    ]


def test_separation_is_the_share_of_near_points_of_the_class() -> None:
    rows = made_up(1.0, "mask")
    places = np.array([(r["x"], r["y"]) for r in rows])
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    shares = [
        np.mean([rows[j]["label"] == rows[i]["label"] for j in np.argsort(distances[i])[:10]])
        for i in range(len(rows))
    ]
    assert separation(rows) == pytest.approx(np.mean(shares))
    assert separation(made_up(0.01, "mask")) == 1


@pytest.mark.parametrize(
    ("pretrained", "finetuned", "masked", "expected"),
    [
        (9.0, 0.5, 0.5, "agrees"),
        (9.0, 0.5, 9.0, "disagrees"),
        (0.1, 0.1, 0.1, "disagrees"),  # nothing was mixed
    ],
)
def test_rule(pretrained: float, finetuned: float, masked: float, expected: str) -> None:
    rows = made_up(pretrained, "pretrained") + made_up(finetuned, "finetune")
    assert conclude(rows + made_up(masked, "mask"), "").verdict == expected
