"""Median, deviation, best and n of a folder of results, in all its forms."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from finetune.errors import FinetuneError
from finetune.glue import main
from finetune.results.cells import AVERAGE, averages, best_rates, collect
from finetune.tasks import GLUE


def write(folder: Path, task: str, method: str, seed: int, rate: str = "", **results: Any) -> None:
    job = folder / task / method / rate / f"seed-{seed}"
    job.mkdir(parents=True)
    (job / "job.json").write_text("{}")
    (job / "all_results.json").write_text(json.dumps(results))


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [0.5, 0.9, 0.6]
    for seed, value in enumerate(values):
        write(
            tmp_path, "mnli", "mask", seed, eval_accuracy=value, eval_accuracy_mm=value / 2,
            train_samples=5000, eval_samples=9815, constant_accuracy=0.354,
            status="collapsed" if seed == 0 else "ok",
        )  # fmt: skip
    write(tmp_path, "cola", "finetune", 1, eval_matthews_correlation=0.25, eval_loss=1.0)
    (tmp_path / "cola" / "finetune" / "seed-2").mkdir()
    (tmp_path / "cola" / "finetune" / "seed-2" / "job.json").write_text("{}")
    main(["table", str(tmp_path)])

    with (tmp_path / "table.csv").open() as file:
        rows = {(row["task"], row["metric"]): row for row in csv.DictReader(file)}
    assert set(rows) == {
        ("mnli", "accuracy"),
        ("mnli", "accuracy_mm"),
        ("cola", "matthews_correlation"),
    }
    mnli = rows["mnli", "accuracy"]
    assert (float(mnli["median"]), mnli["n"], mnli["best"], mnli["failed"]) == (
        0.6,
        "3",
        "0.9",
        "1",
    )
    assert float(mnli["std"]) == pytest.approx(np.std(values, ddof=1))
    assert json.loads((tmp_path / "table.json").read_text())[0]["task"] == "cola"
    markdown = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out == markdown
    figures = "– | 60.0 ± 20.8 (n=3, 1 failed †), best 90.0 |"
    assert f"5,000 of 392,702 | 9,815 | 35.4 | {figures}" in markdown
    assert "| cola | matthews_correlation |  |  |  | 25.0 (n=1) | – |" in markdown
    assert "Median ± standard deviation over seeds" in markdown
    assert "†: seeds that failed" in markdown and "Not finished: 1 job." in markdown
    assert "No GLUE average without sst2" in markdown
    assert image.imread(tmp_path / "table.png").std() > 0


def test_the_best_of_several_rates_counts_and_all_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rate, values in {"1e-05": [0.6, 0.61, 0.9], "0.001": [0.5, 0.5, 0.95]}.items():
        for seed, value in enumerate(values):
            write(tmp_path, "rte", "lora", seed, f"lr-{rate}", eval_accuracy=value)
    (cell,) = best_rates(collect(tmp_path))
    assert (cell.learning_rate, cell.median, cell.n) == (1e-5, 0.61, 3)
    main(["table", str(tmp_path)])
    text = capsys.readouterr().out
    assert text.count("| rte | ") == 3
    assert "| rte | lora | 0.001 | accuracy | 50.0 ± 26.0 (n=3), best 95.0 |" in text


def test_what_a_sweeps_config_names_and_is_not_there_is_unfinished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "rte", "finetune", 1, eval_accuracy=0.6)
    config = tmp_path / "sweep.yaml"
    config.write_text("task_name: [rte, cola]\nmethod: [finetune, mask]\nseed: [1, 2]\n")
    main(["table", str(tmp_path), "--config", str(config)])
    text = capsys.readouterr().out
    assert "| rte | accuracy |  |  |  | 60.0 (n=1) | not finished |" in text
    assert "| cola | matthews_correlation |  |  |  | not finished | not finished |" in text


def test_glue_averages_are_those_of_the_papers(tmp_path: Path) -> None:
    """RoBERTa-base's published row averages to 86.35."""
    published = {
        "mnli": 87.6, "qnli": 92.8, "qqp": 91.9, "rte": 78.7, "sst2": 94.8, "mrpc": 90.2,
        "cola": 63.6, "stsb": 91.2,
    }  # fmt: skip
    for task, value in published.items():
        results = {f"eval_{metric}": 0.5 for metric in GLUE[task].metrics}
        results[f"eval_{GLUE[task].metrics[0]}"] = value / 100
        write(tmp_path, task, "finetune", 1, **results)
    (average,) = averages(collect(tmp_path))
    assert average.task == AVERAGE and 100 * average.median == pytest.approx(86.35, abs=0.005)
    write(tmp_path, "wnli", "finetune", 1, eval_accuracy=0.65)
    (tmp_path / "mnli/finetune/seed-1/all_results.json").write_text(
        json.dumps({"eval_accuracy": 0.8, "eval_accuracy_mm": 0.7})
    )
    _, board = averages(collect(tmp_path))
    single = [0.636, 0.948, 0.928, 0.787, 0.65]
    pairs = [(0.902 + 0.5) / 2, (0.912 + 0.5) / 2, (0.919 + 0.5) / 2, 0.75]
    assert board.median == pytest.approx(np.mean(single + pairs))


def test_nothing_to_table(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="no finished job"):
        collect(tmp_path)
    with pytest.raises(FinetuneError, match="required: DIR"):
        main(["table"])


def test_copies_that_someone_set_aside_do_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "rte", "mask", 1, eval_accuracy=0.5)
    job = tmp_path / "rte" / "mask" / "seed-1"
    for name in ("seed-1.old", "seed-abc", "lr-high/seed-1"):
        shutil.copytree(job, tmp_path / "rte" / "mask" / name)
    (cell,) = collect(tmp_path)
    assert (cell.n, cell.values) == (1, [0.5])
    assert sum("is passed over" in record.message for record in caplog.records) == 3
    (job / "all_results.json").write_text('{"eval_acc')
    with pytest.raises(FinetuneError, match=r"seed-1/all_results\.json: not JSON"):
        collect(tmp_path)


def test_the_first_metric_asked_for_decides(tmp_path: Path) -> None:
    for rate, accuracy, macro in (("lr-0.1", 0.9, 0.3), ("lr-0.2", 0.8, 0.7), ("lr-0.3", 0.5, 0.5)):
        write(tmp_path, "mine", "mask", 1, rate, eval_accuracy=accuracy, eval_macro_f1=macro)
        job = tmp_path / "mine/mask" / rate / "seed-1/job.json"
        job.write_text(json.dumps({"metrics": ["macro_f1", "accuracy"]}))
    best = best_rates(collect(tmp_path))
    assert [(cell.metric, cell.learning_rate) for cell in best] == [
        ("macro_f1", 0.2),
        ("accuracy", 0.2),
    ]


def test_seeds_of_other_settings_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for seed, epochs in ((1, 1), (2, 4)):
        write(tmp_path, "mine", "mask", seed, eval_accuracy=0.5)
        job = tmp_path / f"mine/mask/seed-{seed}/job.json"
        job.write_text(json.dumps({"seed": seed, "num_train_epochs": epochs}))
    main(["table", str(tmp_path)])
    assert "Seeds of other settings than each other: mine, mask." in capsys.readouterr().out
    assert "these seeds are of different settings: num_train_epochs" in caplog.text


def test_a_task_of_ones_own_that_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "other", "mask", 1, eval_accuracy=0.5)
    config = tmp_path / "c.yaml"
    config.write_text("task_name: [other, mine]\nmethod: [mask]\ntrain_file: t.csv\n")
    main(["table", str(tmp_path), "--config", str(config)])
    assert "| mine |  |  |  |  | not finished |" in capsys.readouterr().out
