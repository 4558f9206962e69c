"""The figure of masked blocks: which blocks are masked indeed; the test, by hand."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.errors import FinetuneError
from finetune.masks.folder import MaskFolder
from finetune.results.comparison import overall
from reproduce.weight_masks.command import main
from reproduce.weight_masks.layers import conclude, pairs


def masked_blocks(folder: Path) -> set[str]:
    names = MaskFolder.open(folder).kinds
    return {name.split(".layer.")[1][0] for name in names if ".layer." in name}


def test_figure(flags: list[str], tmp_path: Path, read: Callable, result: Callable) -> None:
    command = ["layers", *flags, "--task_name", "library", "--seed", "1", "--max_steps", "3"]
    main([*command, "--output_dir", str(tmp_path)])
    folders = {p.name: p / "library/mask/seed-1" for p in (tmp_path / "runs-layers").glob("*-*")}
    expected = {
        "top-0": set(),
        "bottom-1": {"0"},
        "top-1": {"1"},
        "top-2": {"0", "1"},
    }
    assert {name: masked_blocks(folder) for name, folder in folders.items()} == expected
    for folder in folders.values():
        assert any("classifier" in name for name in MaskFolder.open(folder).kinds)
    rows, _ = read(tmp_path / "layers")
    # The ends, none and all, belong to both curves.
    assert [(r["side"], r["blocks"]) for r in rows] == [
        *(("bottom", "0"), ("top", "0"), ("bottom", "1"), ("top", "1")),
        *(("bottom", "2"), ("top", "2")),
    ]
    for row in rows:
        side = row["side"] if row["blocks"] == "1" else "top"
        accuracy = result(folders[f"{side}-{row['blocks']}"])["eval_accuracy"]
        assert float(row["score"]) == pytest.approx(accuracy, abs=1e-5)


def test_more_blocks_than_there_are(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match=r"counts: found \[1, 3\]; this encoder has 2 blocks"):
        main(["layers", *flags, "--counts", "3", "1", "--output_dir", str(tmp_path)])


def made_up(gain: float, noise: float) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [
        {
            "task": "t",
            "side": side,
            "blocks": count,
            "seed": seed,
            "score": 0.7 + gain * (side == "top" and 0 < count < 4) + noise * draw.normal(),
        }
        for count, seed, side in product(range(5), range(3), ("bottom", "top"))
    ]


def test_p_value_is_of_the_pairs_that_differ() -> None:
    rows = made_up(0.01, 0.01)
    found = pairs(rows, "t", 4)
    assert found is not None and len(found.first) == 9
    by_key = {(r["side"], r["blocks"], r["seed"]): r["score"] for r in rows}
    differences = np.array(
        [by_key["top", b, s] - by_key["bottom", b, s] for b, s in product((1, 2, 3), range(3))]
    )
    means = np.abs(np.array(list(product([1, -1], repeat=9))) @ differences) / 9
    expected = np.mean(means >= abs(differences.mean()) - 1e-12)
    assert overall([found])[1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("gain", "expected"), [(0.05, "agrees"), (-0.05, "disagrees"), (0.0, "undecided")]
)
def test_rule(gain: float, expected: str) -> None:
    assert conclude(made_up(gain, 0.01), 4, "").verdict == expected
