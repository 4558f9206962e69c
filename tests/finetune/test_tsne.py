"""The t-SNE figure: three panels of the same dev sentences, from a finished sweep."""

import csv
from pathlib import Path

import pytest
from matplotlib import image

from finetune.analysis.__main__ import main as analysis
from finetune.errors import FinetuneError
from finetune.glue import main


def test_figure(tiny_model: Path, tiny_tasks: Path, tmp_path: Path) -> None:
    flags = ["--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)]
    flags += ["--task_name", "library", "--max_seq_length", "16"]
    figure = ["tsne", *flags, "--runs", str(tmp_path), "--output", str(tmp_path / "figure")]
    with pytest.raises(FinetuneError, match="no finished job library/finetune"):
        analysis(figure)
    main(
        [*flags, "--output_dir", str(tmp_path), "--method", "finetune", "mask", "--max_steps", "2"]
    )
    analysis([*figure, "--max_points", "35"])
    with (tmp_path / "figure.csv").open() as file:
        rows = list(csv.DictReader(file))
    panels = {panel: [r for r in rows if r["panel"] == panel] for panel in ("pretrained", "mask")}
    assert len(rows) == 3 * 35 and len(panels["mask"]) == 35
    assert [r["label"] for r in panels["mask"]] == [r["label"] for r in panels["pretrained"]]
    assert image.imread(tmp_path / "figure.png").std() > 0
