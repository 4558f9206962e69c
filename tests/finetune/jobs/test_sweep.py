"""Sweeps: several rates, side by side, resumed; and starts from another task's encoder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from finetune.errors import FinetuneError
from finetune.glue import main
from finetune.jobs.plan import make_plan
from finetune.jobs.sweep import Forecast, _devices, how_many
from finetune.jobs.train import Job, build_model


def words(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--model_name_or_path", str(model), "--data_dir", str(data), "--output_dir", str(out)),
        *("--max_seq_length", "16", "--max_steps", "3", "--bf16", "false", *more),
    ]


def scores(out: Path) -> dict[str, tuple]:
    return {
        str(path.parent.relative_to(out)): (found["eval_loss"], found["eval_accuracy"])
        for path in sorted(out.rglob("all_results.json"))
        for found in [json.loads(path.read_text())]
    }


def test_side_by_side_is_one_after_another(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    """Two processes, two rates, two seeds; with one job's results lost on the way."""
    sweep = ["--task_name", "library", "--learning_rate", "1e-3", "0.01", "--seed", "1", "2"]
    main(words(tiny_model, tiny_tasks, tmp_path / "one", *sweep))
    main(words(tiny_model, tiny_tasks, tmp_path / "two", *sweep, "--num_processes", "2"))
    first, second = scores(tmp_path / "one"), scores(tmp_path / "two")
    assert set(first) == {
        f"library/finetune/lr-{rate}/seed-{seed}" for rate in ("0.001", "0.01") for seed in (1, 2)
    }
    assert len(set(first.values())) == 4
    for name, values in first.items():
        assert second[name] == pytest.approx(values, rel=1e-4)
    kept = tmp_path / "one/library/finetune/lr-0.01/seed-1/all_results.json"
    lost = tmp_path / "one/library/finetune/lr-0.01/seed-2"
    stamp = kept.stat().st_mtime_ns
    shutil.rmtree(lost)
    main(words(tiny_model, tiny_tasks, tmp_path / "one", *sweep))
    assert scores(tmp_path / "one") == first and kept.stat().st_mtime_ns == stamp


def test_a_mad_learning_rate_is_marked(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["--task_name", "library", "--learning_rate", "1e30", "--max_grad_norm", "0"]
    main(words(tiny_model, tiny_tasks, tmp_path, *sweep, "--seed", "1", "2"))
    results = json.loads((tmp_path / "library/finetune/seed-1/all_results.json").read_text())
    assert results["status"] in ("diverged", "collapsed")
    main(["table", str(tmp_path)])
    assert "(n=2, 2 failed †)" in capsys.readouterr().out


def test_start_from_another_tasks_encoder(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("tasks: {rte: {start_from: library}}\n")
    more = ["--config", str(config), "--seed", "3", "--learning_rate", "0.01"]
    out = tmp_path / "out"
    alone = words(tiny_model, tiny_tasks, out, *more, "--task_name", "rte")
    with pytest.raises(FinetuneError, match=r"library/finetune/seed-3 is no finished job"):
        main(alone)
    # rte is named first and yet has to wait for library.
    main(words(tiny_model, tiny_tasks, out, *more, "--task_name", "rte", "library"))
    record = json.loads((out / "rte/finetune/seed-3/job.json").read_text())
    assert record["start_from"] == "library"
    plan = make_plan([*alone, "--overwrite_cache"])
    ((job,),) = plan.rounds
    started, _ = build_model(job, plan.inputs.backbone, plan.inputs.encoded(job))
    donor = AutoModelForSequenceClassification.from_pretrained(out / "library/finetune/seed-3")
    base = started.base_model.state_dict()  # type: ignore[union-attr]
    for name, value in donor.base_model.state_dict().items():
        assert value.equal(base[name]), name
    assert started.config.id2label == {0: "entailment", 1: "not_entailment"}  # type: ignore
    dense = started.classifier.dense.weight  # type: ignore[union-attr]
    assert not dense.equal(donor.classifier.dense.weight)  # the head stays behind
    assert started.name_or_path == str(out / "library/finetune/seed-3")  # a mask's backbone


def test_token_rows_are_read_back(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = words(tiny_model, tiny_tasks, tmp_path, "--task_name", "rte")
    plan = make_plan(command)
    job = plan.rounds[0][0]
    first = plan.inputs.encoded(job)
    assert len(list((tmp_path / ".tokens").glob("rte-*.npz"))) == 2
    monkeypatch.setattr("finetune.tasks.encode._encode", None)
    again = make_plan(command).inputs.encoded(job)
    assert list(again.train) == list(first.train) and list(again.dev[""]) == list(first.dev[""])
    with pytest.raises(TypeError):
        make_plan([*command, "--max_seq_length", "12"]).inputs.encoded(
            make_plan([*command, "--max_seq_length", "12"]).rounds[0][0]
        )


@pytest.mark.parametrize(
    ("gpus", "wanted", "jobs", "ranks", "expected"),
    [
        (0, None, 9, False, 0),
        (0, 2, 9, False, 2),
        (0, 4, 1, False, 0),
        (1, None, 9, False, 0),
        (4, None, 9, False, 4),
        (4, None, 1, False, 1),
        (4, None, 0, False, 0),
        (4, None, 9, True, 0),
    ],
)
def test_how_many_processes(
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    wanted: int | None,
    jobs: int,
    ranks: bool,
    expected: int,
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if ranks:
        monkeypatch.setenv("LOCAL_RANK", "0")
    assert how_many(wanted, jobs) == expected


def test_the_time_left_knows_that_methods_take_different_times(tmp_path: Path) -> None:
    names = [("rte", "finetune"), ("rte", "mask"), ("mrpc", "finetune"), ("mrpc", "mask")]
    jobs = [planned(tmp_path, task, method, seed) for task, method in names for seed in (1, 2)]
    forecast = Forecast(jobs, processes=2)
    by_name = {(job.task, job.method, job.seed): job for job in jobs}
    # All seven others as the only one that is known.
    assert forecast.after(by_name["rte", "finetune", 1], 10.0) == 7 * 10 / 2
    # Both masks of mrpc and the other of rte as rte's, three finetuned as before.
    assert forecast.after(by_name["rte", "mask", 1], 40.0) == (3 * 40 + 3 * 10) / 2
    # mrpc's other seed as this one, which is nearer to it than rte's.
    assert forecast.after(by_name["mrpc", "finetune", 1], 20.0) == (3 * 40 + 10 + 20) / 2


def planned(folder: Path, task: str, method: str, seed: int) -> Job:
    place = folder / task / method / f"seed-{seed}"
    return Job(task=task, method=method, seed=seed, folder=place, training={}, settings={})


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert _devices(2) == ["", ""]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert _devices(3) == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-ab")
    assert _devices(2) == ["5", "GPU-ab"]
