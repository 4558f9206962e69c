"""Run folders: the newest good checkpoint, what is kept, one writer, what may change."""

from __future__ import annotations

import errno
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pretrain.budget import Progress
from pretrain.config import PretrainConfig, RunConfig
from pretrain.errors import PretrainError
from pretrain.fault_tolerance.checkpoint import State, part_name, write_part
from pretrain.fault_tolerance.run_folder import RunFolder, open_checkpoint


def save(run: RunFolder, step: int, loss: float | None = None, skipped: int = 0) -> Path:
    folder = run.checkpoints / f"step-{step:08d}"
    folder.mkdir(parents=True)
    name = part_name(0, 1)
    part = write_part(folder / name, {"weight/w@0": 4}, torch.arange(4.0))
    progress = Progress(step=step, skipped_in_row=skipped)
    state = State(progress=progress, shapes={"w": [4]}, valid_loss=loss, parts={name: part})
    state.write(folder / "state.json")
    return folder


def steps(run: RunFolder) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in run.checkpoints.glob("step-*"))


def damage(folder: Path) -> None:
    file = folder / part_name(0, 1)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep_checkpoints": 2, "keep_best": False}, [40, 50]),
        ({"keep_checkpoints": 1, "keep_best": True}, [30, 50]),
        ({"keep_checkpoints": 1, "keep_every": 20, "keep_best": False}, [20, 40, 50]),
    ],
)
def test_what_is_kept(tmp_path: Path, settings: dict[str, int], kept: list[int]) -> None:
    run = RunFolder(tmp_path)
    for step, loss in ((10, 4.0), (20, None), (30, 2.0), (40, 3.0), (50, None)):
        save(run, step, loss)
    run.prune(RunConfig(output_dir=str(tmp_path), **settings))  # type: ignore[arg-type]
    assert steps(run) == kept
    assert not list(run.checkpoints.glob(".*"))


def test_a_flipped_byte_is_found_and_the_checkpoint_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path)
    save(run, 5)
    newest = save(run, 10)
    damage(newest)
    with caplog.at_level(logging.WARNING):
        checkpoint = run.newest(verify=True)
    assert checkpoint is not None
    assert checkpoint.progress.step == 5
    assert "step-00000010 can't be used (part-00000-of-00001.safetensors has sha256" in caplog.text


def test_no_run_begins_again_because_all_are_damaged(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    damage(save(run, 5))
    with pytest.raises(PretrainError, match="none of its 1 checkpoints can be used"):
        run.newest(verify=True)


def test_going_back_finds_the_last_one_before_the_skipped_steps(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.rollback_target() is None  # to the initial weights
    save(run, 5)
    save(run, 10, skipped=3)
    checkpoint = run.rollback_target()
    assert checkpoint is not None
    assert checkpoint.progress.step == 5
    assert steps(run) == [5]


def test_what_cannot_be_read_is_never_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    save(run, 5)
    save(run, 10)
    with monkeypatch.context() as broken:  # a file system that fails for a moment
        broken.setattr(State, "read", raise_io_error)
        with pytest.raises(PretrainError, match="none of its 2 checkpoints can be used"):
            run.rollback_target()
        run.prune(RunConfig(output_dir="", keep_checkpoints=1, keep_best=False))
    assert steps(run) == [5, 10]
    (run.checkpoints / "step-00000010" / "state.json").write_text("{")
    checkpoint = run.rollback_target()
    assert checkpoint is not None
    assert checkpoint.progress.step == 5
    save(run, 15)
    run.prune(RunConfig(output_dir="", keep_checkpoints=1, keep_best=False))
    assert steps(run) == [10, 15]  # the newest, and the one that says nothing of itself


def raise_io_error(_file: Path) -> State:
    raise OSError(5, "Input/output error")


def test_a_start_is_recorded_and_a_changed_commit_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path)
    with caplog.at_level(logging.WARNING):
        run.record_start({"commit": "a1"})
        run.record_start({"commit": "a1"})
        assert not caplog.text
        with (tmp_path / "starts.jsonl").open("a") as file:
            file.write('{"commit": "a')  # cut off by a kill
        run.record_start({"commit": "b2"})
    assert "commit was a1, is b2" in caplog.text
    assert [start["commit"] for start in run.starts()] == ["a1", "a1", "b2"]


@pytest.mark.parametrize("content", ["null", "5", '"x"', "{}", "[]", '{"parts": null}', ""])
def test_a_state_that_says_nothing_is_passed_over(tmp_path: Path, content: str) -> None:
    run = RunFolder(tmp_path)
    save(run, 5)
    (save(run, 10) / "state.json").write_text(content)
    checkpoint = run.newest()
    assert checkpoint is not None
    assert checkpoint.progress.step == 5


def test_copies_that_a_user_made_are_none_of_its_checkpoints(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    shutil.copytree(save(run, 5), run.checkpoints / "step-00000005.bak")
    save(run, 10)
    save(run, 15, loss=math.nan)
    save(run, 20, loss=2.0)
    assert run.best_loss() == 2.0
    run.prune(RunConfig(output_dir="", keep_checkpoints=1))
    assert {path.name for path in run.checkpoints.iterdir()} == {
        "step-00000005.bak",
        "step-00000020",
    }


def test_a_checkpoint_that_was_being_replaced_comes_back(tmp_path: Path) -> None:
    """A kill between its removal and the renaming of the new one."""
    run = RunFolder(tmp_path)
    path = save(run, 5)
    path.replace(path.with_name(f".{path.name}.replaced"))
    run.remove_unfinished()
    assert steps(run) == [5]
    assert len(list(run.checkpoints.iterdir())) == 1


def test_a_full_disk_at_the_start_is_one_line(
    tmp_path: Path, tiny_config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = RunFolder(tmp_path)
    monkeypatch.setattr(PretrainConfig, "save", full)
    with pytest.raises(PretrainError, match=r"can't be written \(No space left on device"):
        run.claim(tiny_config())


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.lock(), pytest.raises(PretrainError, match="being written by process"), run.lock():
        pass


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("pretrain.fault_tolerance.run_folder.fcntl.flock", no_locks)
    with caplog.at_level(logging.WARNING), RunFolder(tmp_path).lock():
        assert "has no locks (No locks available)" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(PretrainError, match=r"run\.output_dir: .*file/run can't be written"),
        RunFolder(tmp_path / "file" / "run").lock(),
    ):
        pass


def test_no_checkpoint_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PretrainError, match="no complete checkpoint"):
        open_checkpoint(tmp_path)


def test_harmless_changes_are_shown_and_others_refused(
    tiny_config: Callable[..., PretrainConfig], caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tiny_config().run.output_dir)
    save(run, 5)
    tiny_config().save(run.path / "config.yaml")
    with caplog.at_level(logging.INFO):
        run.claim(tiny_config("--data.micro_batch_size", "8", "--run.log_every", "3"))
    assert "data.micro_batch_size: was 4, is 8" in caplog.text
    assert "run.log_every: was 1, is 3" in caplog.text
    with pytest.raises(PretrainError, match=r"optimizer\.lr: was 0\.003, is 0\.1"):
        run.claim(tiny_config("--optimizer.lr", "0.1"))
    with pytest.raises(PretrainError, match=r"run\.seed: was 0, is 1"):
        run.claim(tiny_config("--run.seed", "1"))
