"""Single models as their runs have it; which ensembles there are; votes counted by hand."""

from collections import Counter
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from finetune.errors import FinetuneError
from reproduce.weight_masks.command import main
from reproduce.weight_masks.ensemble import conclude, ensembles


def test_figure(
    runs: Path, flags: list[str], tmp_path: Path, read: Callable, result: Callable
) -> None:
    command = ["ensemble", *flags, "--runs", str(runs), "--output_dir", str(tmp_path)]
    main([*command, "--size", "2"])
    rows, _ = read(tmp_path / "ensemble")
    # Two singles a kind, one pure ensemble a kind and four mixed ones by three votes; two tasks.
    assert len(rows) == 2 * (2 * 2 + 3 * (1 + 1 + 4))
    for row in rows:
        if row["vote"] == "single":
            method, _, seed = row["members"].partition("-")
            expected = result(runs / row["task"] / method / f"seed-{seed}")["eval_accuracy"]
            assert float(row["score"]) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(FinetuneError, match="size 4: 2 seeds make no ensemble"):
        main(command)


def test_all_ensembles_of_a_size_and_their_votes() -> None:
    draw = np.random.default_rng(0)
    members = [(method, seed) for method in ("mask", "finetune") for seed in range(4)]
    found = {member: draw.normal(size=(20, 3)) for member in members}
    every = list(ensembles(found, 4))
    counts = Counter((kind, how) for kind, _, how, _ in every)
    assert counts["masked", "single"] == 4 and counts["masked", "label"] == 1
    assert counts["mixed", "logit"] == comb(4, 2) ** 2
    for kind, some, how, scores in every:
        methods = Counter(method for method, _ in some)
        if kind == "mixed":
            assert methods == {"mask": 2, "finetune": 2}
        logits = np.stack([found[member] for member in some])
        if how == "probability":
            np.testing.assert_allclose(scores, softmax(logits, axis=2).mean(axis=0), atol=1e-12)
        elif how == "label":
            for row in range(20):
                votes = Counter(logits[:, row].argmax(axis=1).tolist())
                assert votes[int(scores[row].argmax())] == max(votes.values())


def row(kind: str, how: str, score: float) -> dict[str, Any]:
    return {"task": "t", "kind": kind, "vote": how, "score": score}


@pytest.mark.parametrize(
    ("masked", "mixed", "expected"),
    [(0.9, 0.9, "agrees"), (0.7, 0.9, "disagrees"), (0.9, 0.7, "disagrees")],
)
def test_rule(masked: float, mixed: float, expected: str) -> None:
    rows = [row("masked", "single", 0.8), row("finetuned", "single", 0.8)]
    rows += [row("masked", "probability", masked), row("finetuned", "probability", 0.85)]
    assert conclude([*rows, row("mixed", "probability", mixed)], "").verdict == expected
