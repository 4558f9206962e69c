"""Checkpoints: complete or absent, newest good one, one writer a folder."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from pretrain.checkpoint import RunFolder, open_checkpoint
from pretrain.config import PretrainError
from pretrain.optim import Progress

WEIGHTS = {"w": torch.arange(4.0)}
MOMENTS = {"exp_avg.w": torch.ones(4), "exp_avg_sq.w": torch.ones(4)}


def save(run: RunFolder, step: int, keep: int = 9) -> Path:
    return run.save(WEIGHTS, MOMENTS, Progress(step=step, sequences=16 * step), keep)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    save(run, 7)
    checkpoint = run.newest()
    assert checkpoint is not None
    assert checkpoint.progress == Progress(step=7, sequences=112)
    assert torch.equal(checkpoint.weights()["w"], WEIGHTS["w"])
    assert set(checkpoint.moments()) == set(MOMENTS)
    assert checkpoint.run_folder == tmp_path


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (5, 10, 15, 20):
        save(run, step, keep=2)
    assert [p.name for p in sorted(run.checkpoints.iterdir())] == ["step-00000015", "step-00000020"]


def test_a_damaged_one_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path)
    save(run, 5)
    newest = save(run, 10)
    with (newest / "model.safetensors").open("r+b") as file:
        file.truncate(10)
    with caplog.at_level(logging.WARNING):
        checkpoint = run.newest()
    assert checkpoint is not None
    assert checkpoint.progress.step == 5
    assert "step-00000010 is damaged" in caplog.text
    with pytest.raises(PretrainError, match="damaged"):
        open_checkpoint(newest)


def test_a_failure_while_writing_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    save(run, 5, keep=1)

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pretrain.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(run, 10, keep=1)
    checkpoint = run.newest()
    assert checkpoint is not None
    assert checkpoint.progress.step == 5


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.lock(), pytest.raises(PretrainError, match="being written by process"), run.lock():
        pass


def test_no_checkpoint_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PretrainError, match="no complete checkpoint"):
        open_checkpoint(tmp_path)
