"""What comes from the Trainer works through a job: checkpoints, the best one, TensorBoard."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.glue import main


def words(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--model_name_or_path", str(model), "--data_dir", str(data), "--output_dir", str(out)),
        *("--task_name", "library", "--seed", "1", "--max_seq_length", "16", "--bf16", "false"),
        *("--learning_rate", "0.01", "--per_device_train_batch_size", "16", *more),
    ]


@pytest.mark.parametrize(
    ("method", "stored"),
    [
        ("finetune", "model.safetensors"),
        ("shira", "adapter_model.safetensors"),
        ("ia3", "adapter_model.safetensors"),
    ],
)
def test_an_interrupted_job_resumes_from_its_checkpoint(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path, method: str, stored: str
) -> None:
    steps = ["--max_steps", "6", "--save_strategy", "steps", "--save_steps", "4"]
    more = ["--method", method, "--shira_r", "2"]
    command = words(tiny_model, tiny_tasks, tmp_path, *steps, *more)
    main(command)
    job = tmp_path / "library" / method / "seed-1"
    whole = load_file(job / stored)
    (job / "all_results.json").unlink()
    (job / stored).unlink()
    shutil.rmtree(job / "checkpoint-6")
    main(command)
    state = json.loads((job / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["global_step"] == 6
    for name, value in load_file(job / stored).items():
        torch.testing.assert_close(value, whole[name])


def test_the_best_epoch_and_tensorboard(tiny_model: Path, tiny_tasks: Path, tmp_path: Path) -> None:
    main(
        words(
            tiny_model, tiny_tasks, tmp_path, "--num_train_epochs", "4", "--report_to",
            "tensorboard", "--eval_strategy", "epoch", "--save_strategy", "epoch",
            "--load_best_model_at_end", "true", "--metric_for_best_model", "accuracy",
        )
    )  # fmt: skip
    job = tmp_path / "library/finetune/seed-1"
    states = [json.loads(p.read_text()) for p in job.glob("checkpoint-*/trainer_state.json")]
    history = max(states, key=lambda state: state["global_step"])["log_history"]
    found = [log["eval_accuracy"] for log in history if "eval_accuracy" in log]
    results = json.loads((job / "all_results.json").read_text())
    assert len(found) == 4 and results["eval_accuracy"] == pytest.approx(max(found))
    assert list(job.rglob("events.out.tfevents*"))


def test_bf16_may_be_asked_for_without_a_gpu(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    main(words(tiny_model, tiny_tasks, tmp_path, "--max_steps", "1", "--bf16"))
    job = json.loads((tmp_path / "library/finetune/seed-1/job.json").read_text())
    assert job["bf16"] is True
    assert (tmp_path / "library/finetune/seed-1/all_results.json").is_file()
