"""Median, deviation and n of a folder of results, in all three forms."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from finetune.errors import FinetuneError
from finetune.glue import main
from finetune.table import collect


def write(folder: Path, task: str, method: str, seed: int, **results: float) -> None:
    job = folder / task / method / f"seed-{seed}"
    job.mkdir(parents=True)
    (job / "all_results.json").write_text(json.dumps(results))


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [0.5, 0.9, 0.6]
    for seed, value in enumerate(values):
        write(tmp_path, "mnli", "mask", seed, eval_accuracy=value, eval_accuracy_mm=value / 2)
    write(tmp_path, "cola", "finetune", 1, eval_matthews_correlation=0.25, eval_loss=1.0)
    (tmp_path / "cola" / "finetune" / "seed-2").mkdir()  # unfinished
    main(["table", str(tmp_path)])

    with (tmp_path / "table.csv").open() as file:
        rows = {(row["task"], row["metric"]): row for row in csv.DictReader(file)}
    assert set(rows) == {
        ("mnli", "accuracy"),
        ("mnli", "accuracy_mm"),
        ("cola", "matthews_correlation"),
    }
    mnli = rows["mnli", "accuracy"]
    assert (float(mnli["median"]), mnli["n"]) == (0.6, "3")
    assert float(mnli["std"]) == pytest.approx(np.std(values, ddof=1))
    assert json.loads((tmp_path / "table.json").read_text())[0]["method"] in ("mask", "finetune")
    markdown = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out == markdown
    assert "| mnli | accuracy | – | 60.0 ± 20.8 (n=3) |" in markdown
    assert "| cola | matthews_correlation | 25.0 ± 0.0 (n=1) | – |" in markdown


def test_nothing_to_table(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="no finished job"):
        collect(tmp_path)
    with pytest.raises(FinetuneError, match="table DIR"):
        main(["table"])
