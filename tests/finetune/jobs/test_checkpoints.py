"""Checkpoints that a kill or a full disk cut off: passed over, left there, an older one taken."""

import json
import logging
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from finetune.errors import FinetuneError
from finetune.glue import main
from finetune.jobs.checkpoints import newest_whole

JOB = "library/finetune/seed-1"


def words(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--model_name_or_path", str(model), "--data_dir", str(data), "--output_dir", str(out)),
        *("--task_name", "library", "--seed", "1", "--max_seq_length", "16", "--bf16", "false"),
        *("--learning_rate", "0.01", "--per_device_train_batch_size", "16", "--max_steps", "6"),
        *("--save_strategy", "steps", "--save_steps", "2", *more),
    ]


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a job with checkpoints 2, 4 and 6."""
    out = tmp_path_factory.mktemp("out")
    main(words(tiny_model, tiny_tasks, out))
    return out


@pytest.fixture
def interrupted(trained: Path, tmp_path: Path) -> Path:
    """The same before it had finished."""
    shutil.copytree(trained, tmp_path / "out")
    (tmp_path / "out" / JOB / "all_results.json").unlink()
    return tmp_path / "out"


def cut(name: str, at: float = 0.6) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        file = checkpoint / name
        os.truncate(file, int(at * file.stat().st_size))

    return damage


def without(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).unlink()


def emptied(checkpoint: Path) -> None:
    for file in checkpoint.iterdir():
        file.unlink()


def bit_flipped(checkpoint: Path) -> None:
    content = bytearray((checkpoint / "optimizer.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoint / "optimizer.pt").write_bytes(content)


def of_another_step(checkpoint: Path) -> None:
    (checkpoint / "trainer_state.json").write_text("{}")


DAMAGES = {
    "empty": (emptied, "no trainer_state.json"),
    "no-state": (without("trainer_state.json"), "no trainer_state.json"),
    "no-weights": (without("model.safetensors"), "no weights"),
    "no-optimizer": (without("optimizer.pt"), "no optimizer"),
    "no-schedule": (without("scheduler.pt"), "no schedule"),
    "no-random-state": (without("rng_state.pth"), "no random state"),
    "cut-state": (cut("trainer_state.json"), r"trainer_state\.json is cut off"),
    "cut-weights": (cut("model.safetensors"), r"model\.safetensors is cut off"),
    "cut-optimizer": (cut("optimizer.pt"), r"optimizer\.pt is cut off"),
    "cut-random-state": (cut("rng_state.pth"), r"rng_state\.pth is cut off"),
    "zero-bytes": (cut("optimizer.pt", at=0), r"optimizer\.pt is cut off"),
    "bit-flip": (bit_flipped, r"optimizer\.pt is cut off or damaged"),
    "other-step": (of_another_step, "of step 0"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_one_line(
    interrupted: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, reason = DAMAGES[name]
    damage(interrupted / JOB / "checkpoint-6")
    left = sorted((interrupted / JOB).rglob("*"))
    with caplog.at_level(logging.WARNING):
        assert newest_whole(interrupted / JOB) == interrupted / JOB / "checkpoint-4"
    (record,) = caplog.records
    assert "checkpoint-6 is passed over" in record.message and "\n" not in record.message
    assert re.search(reason, record.message)
    assert sorted((interrupted / JOB).rglob("*")) == left


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_cut_anywhere_is_noticed(trained: Path, data: st.DataObject) -> None:
    checkpoint = trained / JOB / "checkpoint-6"
    read = {".json", ".safetensors", ".pt", ".pth", ".bin"}
    names = sorted(file.name for file in checkpoint.iterdir() if file.suffix in read)
    file = checkpoint / data.draw(st.sampled_from(names))
    content = file.read_bytes()
    try:
        # Without its last byte, a line feed, JSON is whole.
        os.truncate(file, data.draw(st.integers(0, len(content) - 2)))
        assert newest_whole(trained / JOB) == trained / JOB / "checkpoint-4"
    finally:
        file.write_bytes(content)
    assert newest_whole(trained / JOB) == checkpoint


def test_deepspeed_keeps_weights_and_optimizer_in_a_folder(interrupted: Path) -> None:
    """What DeepSpeed's engine leaves under the Trainer: no model.safetensors with ZeRO stage 3."""
    checkpoint = interrupted / JOB / "checkpoint-6"
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        (checkpoint / name).unlink()
    assert newest_whole(interrupted / JOB) == interrupted / JOB / "checkpoint-4"
    (checkpoint / "global_step6").mkdir()
    (checkpoint / "latest").write_text("global_step6")
    part = checkpoint / "global_step6" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    torch.save({"step": 6, "moments": torch.zeros(1000)}, part)
    assert newest_whole(interrupted / JOB) == checkpoint
    os.truncate(part, 2000)
    assert newest_whole(interrupted / JOB) == interrupted / JOB / "checkpoint-4"


def test_only_whole_numbers_are_steps(interrupted: Path) -> None:
    for name in ("checkpoint-abc", "checkpoint-", "checkpoint-8.old", "my-checkpoint-9"):
        shutil.copytree(interrupted / JOB / "checkpoint-6", interrupted / JOB / name)
    (interrupted / JOB / "checkpoint-12").write_text("a file")
    assert newest_whole(interrupted / JOB) == interrupted / JOB / "checkpoint-6"
    assert newest_whole(interrupted / JOB / "checkpoint-6") is None


def stamps(job: Path) -> dict[str, int]:
    files = job.glob("checkpoint-*/model.safetensors")
    return {file.parent.name: file.stat().st_mtime_ns for file in files}


@pytest.mark.parametrize("damaged", [["checkpoint-6"], ["checkpoint-2", "checkpoint-4"]])
def test_training_resumes_from_the_newest_whole_one(
    interrupted: Path, tiny_model: Path, tiny_tasks: Path, damaged: list[str]
) -> None:
    """Twice: from step 4, and from the last step."""
    job = interrupted / JOB
    whole = load_file(job / "model.safetensors")
    for name in damaged:
        emptied(job / name)
    before = stamps(job)
    main(words(tiny_model, tiny_tasks, interrupted))
    for name, value in load_file(job / "model.safetensors").items():
        torch.testing.assert_close(value, whole[name])
    after = stamps(job)
    assert {name: after[name] for name in before} == before
    assert (job / "all_results.json").is_file()


def test_without_a_whole_one_training_begins_at_step_0(
    interrupted: Path, tiny_model: Path, tiny_tasks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = interrupted / JOB
    whole = load_file(job / "model.safetensors")
    for checkpoint in job.glob("checkpoint-*"):
        emptied(checkpoint)
    main(words(tiny_model, tiny_tasks, interrupted))
    assert sum("passed over" in record.message for record in caplog.records) == 3
    for name, value in load_file(job / "model.safetensors").items():
        torch.testing.assert_close(value, whole[name])


def test_checkpoints_of_other_settings_are_refused(
    interrupted: Path, tiny_model: Path, tiny_tasks: Path
) -> None:
    with pytest.raises(FinetuneError, match=r"holds the checkpoints of other\s+settings"):
        main(words(tiny_model, tiny_tasks, interrupted, "--weight_decay", "0.5"))
    assert json.loads((interrupted / JOB / "job.json").read_text())["weight_decay"] == 0


@pytest.mark.parametrize("content", ["", '{"task": "lib', "[1]"])
@pytest.mark.parametrize("finished", [True, False])
def test_an_unreadable_record_is_named(
    trained: Path, interrupted: Path, tiny_model: Path, tiny_tasks: Path, content: str,
    finished: bool,
) -> None:  # fmt: skip
    job = interrupted / JOB
    if finished:
        shutil.copy(trained / JOB / "all_results.json", job)
    (job / "job.json").write_text(content)
    with pytest.raises(FinetuneError, match=r"seed-1/job\.json: "):
        main(words(tiny_model, tiny_tasks, interrupted))
    assert (job / "job.json").read_text() == content


def _hold(path: Path, held: multiprocessing.Queue, done: multiprocessing.Queue) -> None:
    with FileLock(path):
        held.put(True)
        done.get()


def test_two_processes_do_not_run_one_job(
    interrupted: Path, tiny_model: Path, tiny_tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process holds the lock by the library alone."""
    monkeypatch.setattr("finetune.jobs.folder.WAIT_SECONDS", 0.2)
    context = multiprocessing.get_context("fork")
    held, done = context.Queue(), context.Queue()
    other = context.Process(target=_hold, args=(interrupted / JOB / "job.lock", held, done))
    other.start()
    held.get()
    files = {file: file.read_bytes() for file in interrupted.rglob("*") if file.is_file()}
    try:
        with pytest.raises(FinetuneError, match=r"seed-1: another process is running this job"):
            main(words(tiny_model, tiny_tasks, interrupted))
    finally:
        done.put(True)
        other.join()
    assert {file: file.read_bytes() for file in interrupted.rglob("*") if file.is_file()} == files
    main(words(tiny_model, tiny_tasks, interrupted))
    assert (interrupted / JOB / "all_results.json").is_file()


def test_what_another_process_finished_meanwhile_is_taken(
    trained: Path, interrupted: Path, tiny_model: Path, tiny_tasks: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from finetune.jobs import sweep

    original = sweep.run_job

    def run_job(*job: object) -> dict:
        shutil.copy(trained / JOB / "all_results.json", interrupted / JOB)
        return original(*job)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "run_job", run_job)
    before = stamps(interrupted / JOB)
    main(words(tiny_model, tiny_tasks, interrupted))
    assert stamps(interrupted / JOB) == before
