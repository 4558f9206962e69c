"""s between masks against brute force; 0 for equal masks, 1 for disjoint flips."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForSequenceClassification

from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from finetune.masks.folder import MaskFolder
from finetune.masks.layer import MaskedLinear
from reproduce.weight_masks.command import main
from reproduce.weight_masks.dissimilarity import compare

NAME = "roberta.encoder.layer.1.output.dense"


def test_figure(runs: Path, flags: list[str], tmp_path: Path, read: Callable) -> None:
    main(["dissimilarity", *flags, "--runs", str(runs), "--output_dir", str(tmp_path)])
    rows, finding = read(tmp_path / "dissimilarity")
    assert len(rows) == 2 * 2 * 6  # seeds, blocks, matrices
    assert {r["matrix"] for r in rows} == {"Q", "K", "V", "AO", "I", "O"}
    for row in rows:
        flips = int(row["flipped_first"]) + int(row["flipped_second"])
        assert float(row["s"]) == pytest.approx(int(row["differing"]) / flips, rel=1e-5)
        # The triangle inequality holds only from the very mask that both began with.
        assert 0 <= float(row["s"]) <= 1 and flips > 0
    assert "library / rte: s 0." in finding["ours"]


def make(model: Path, folder: Path, flip: slice, **settings: object) -> MaskFolder:
    """A mask that differs from its start in the bits `flip` of one matrix."""
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    peft = get_peft_model(base, MaskConfig(labels=["a", "b"], **settings))
    layer = peft.get_submodule(f"base_model.model.{NAME}")
    assert isinstance(layer, MaskedLinear)
    scores = layer.mask_scores["default"].data.view(-1)
    scores[flip] = torch.where(scores[flip] > 0.01, -1.0, 1.0)
    peft.save_pretrained(folder)
    return MaskFolder.open(folder)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (slice(0, 40), slice(0, 40), 0.0),
        (slice(0, 40), slice(40, 100), 1.0),
        (slice(0, 40), slice(20, 60), 0.5),  # 40 of 80 flips aren't shared
        (slice(0, 0), slice(0, 0), None),
    ],
)
def test_s(
    tiny_model: Path, tmp_path: Path, first: slice, second: slice, expected: float | None
) -> None:
    masks = make(tiny_model, tmp_path / "a", first), make(tiny_model, tmp_path / "b", second)
    rows = {(r["block"], r["matrix"]): r for r in compare(*masks, str(tiny_model))}
    assert rows["1", "O"]["s"] == expected
    assert rows["1", "O"]["flipped_first"] == first.stop - first.start
    assert rows["0", "O"]["s"] is None  # no bit was flipped there
    one, other = (dict(mask.masks())[NAME] for mask in masks)
    assert rows["1", "O"]["differing"] == np.sum(one != other)


def test_masks_that_began_differently(tiny_model: Path, tmp_path: Path) -> None:
    first = make(tiny_model, tmp_path / "a", slice(0, 9), seed=1)
    with pytest.raises(FinetuneError, match="began differently, with a seed of 1"):
        compare(first, make(tiny_model, tmp_path / "b", slice(0, 9), seed=2), str(tiny_model))
    other = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    torch.nn.init.zeros_(other.roberta.encoder.layer[0].output.dense.weight)
    other.save_pretrained(tmp_path / "other")
    second = make(tmp_path / "other", tmp_path / "c", slice(0, 9), seed=1)
    with pytest.raises(FinetuneError, match="began differently, with weights of"):
        compare(first, second, str(tiny_model))
    with pytest.raises(FinetuneError, match="belongs to other weights"):
        compare(first, first, str(tmp_path / "other"))


def test_one_task_has_no_pair(runs: Path, flags: list[str], tmp_path: Path) -> None:
    command = ["dissimilarity", *flags, "--runs", str(runs), "--output_dir", str(tmp_path)]
    with pytest.raises(FinetuneError, match="expected two tasks or more"):
        main([*command, "--task_name", "rte"])
