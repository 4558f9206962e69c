"""The probe against tasks whose answers are known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain import probe as probe_module
from pretrain.model import LateMaskModel

Exported = Callable[..., tuple[LateMaskModel, Path]]
WORDS = ["of", "value", "returns", "given", "shape", "number"]


def write_task(folder: Path, separable: bool) -> Path:
    """Texts with `array` or `list` among other words; the label is which, or a coin."""
    folder.mkdir()
    draw = random.Random(0)
    for split, count in (("train", 120), ("dev", 60)):
        lines = ["sentence\tlabel"]
        for _ in range(count):
            kind = draw.choice(["array", "list"])
            label = kind if separable else draw.choice(["array", "list"])
            words = [*draw.choices(WORDS, k=3), kind, kind]
            draw.shuffle(words)
            lines.append(f'{" ".join(words)} "\t{label}')  # the quote is part of the text
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("separable", [True, False])
def test_a_task_is_learned_if_there_is_something_to_learn(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str], separable: bool
) -> None:
    _, folder = exported()
    task = write_task(tmp_path / "task", separable)
    probe_module.main([str(folder.parent), str(task)])
    output = capsys.readouterr().out  # DeepSpeed greets when it is imported
    result = json.loads(output[output.index("{") :])
    assert (result["train_examples"], result["dev_examples"]) == (120, 60)
    assert 0.3 < result["majority"] < 0.7
    assert (result["accuracy"] > 0.9) == separable


def test_a_table_without_labels_is_refused(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = exported()
    task = write_task(tmp_path / "task", True)
    (task / "dev.tsv").write_text("sentence\tscore\na\t1\n")
    with pytest.raises(SystemExit):
        probe_module.main([str(folder.parent), str(task)])
    assert "dev.tsv has columns sentence, score" in capsys.readouterr().err
