"""Runs that were broken off, killed or told to stop go on: to the bit on the same layout."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.pretrain.whole_runs import (
    BREAK,
    STAGES,
    STEPS,
    WARMUP,
    assert_exported,
    broken_off,
    losses,
    run,
    start,
    wait_for_step,
)


def test_resuming_on_the_same_layout_is_exact(
    unbroken: Path, three_layers: Path, tmp_path: Path
) -> None:
    folder = broken_off(unbroken, tmp_path / "run")
    output = run(three_layers, 2, folder)
    assert "resuming from" in output
    assert losses(folder) == losses(unbroken)  # to the bit, dropout included


@pytest.mark.parametrize(
    ("ranks", "stage"),
    [
        (1, "0"),
        pytest.param(2, "3", marks=pytest.mark.long),
        pytest.param(1, "2", marks=pytest.mark.long),
        pytest.param(2, "2", marks=pytest.mark.long),
        pytest.param(2, "2_offload", marks=pytest.mark.long),
    ],
)
def test_resuming_on_another_layout_goes_on_alike(
    unbroken: Path, three_layers: Path, tmp_path: Path, ranks: int, stage: str
) -> None:
    folder = broken_off(unbroken, tmp_path / "run")
    # No dropout: its noise belongs to a rank. The reference is resumed the same way.
    reference = broken_off(unbroken, tmp_path / "reference")
    for path in (folder, reference):
        text = (path / "config.yaml").read_text().replace("dropout: 0.1", "dropout: 0.0")
        (path / "config.yaml").write_text(text)
    still = ("--model.dropout", "0.0")
    run(three_layers, 2, reference, *still)
    run(
        *(three_layers, ranks, folder, *still),
        *("--run.deepspeed_config", f"configs/deepspeed/zero{stage}.json"),
    )
    for kind in ("train/loss", "valid/loss"):  # the same validation sequences, too
        expected = losses(reference, kind)
        assert losses(folder, kind).keys() == expected.keys()
        for step, loss in losses(folder, kind).items():
            assert loss == pytest.approx(expected[step], rel=2e-5), (kind, step)
    assert_exported(folder)


@pytest.mark.long
def test_a_growing_batch_survives_a_kill_and_other_ranks(
    three_layers: Path, tmp_path: Path
) -> None:
    still = ("--model.dropout", "0", "--data.micro_batch_size", "2", *WARMUP)
    every = ("--run.save_every", "1", "--run.keep_checkpoints", "99")
    whole = tmp_path / "whole"
    run(three_layers, 2, whole, *still, *every)
    for ranks in (2, 1):
        folder = tmp_path / f"on {ranks}"
        shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("hf"))
        for checkpoint in (folder / "checkpoints").iterdir():
            if int(checkpoint.name.removeprefix("step-")) > 3:  # the first of 8 sequences
                shutil.rmtree(checkpoint)
        run(three_layers, ranks, folder, *still)
        if ranks == 2:
            assert losses(folder) == losses(whole)
        for step, loss in losses(whole).items():
            assert losses(folder)[step] == pytest.approx(loss, rel=2e-5), step


def test_kill_9_anywhere_loses_nothing_but_time(
    unbroken: Path, three_layers: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(three_layers, 2, folder, "--run.save_every", "1")
    wait_for_step(folder, 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run(three_layers, 2, folder)
    assert losses(folder) == losses(unbroken)


def test_a_signal_saves_and_says_that_the_run_can_go_on(
    unbroken: Path, three_layers: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(three_layers, 1, folder, "--data.micro_batch_size", "8")
    wait_for_step(folder, 2, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)  # a second one soon after is the same one
    assert process.returncode == 75, output[-3000:]
    assert "SIGTERM: saving" in output
    stopped_at = max(losses(folder))
    assert (folder / "checkpoints" / f"step-{stopped_at:08d}" / "state.json").exists()
    run(three_layers, 1, folder, "--data.micro_batch_size", "8")
    assert sorted(losses(folder)) == list(range(1, STEPS + 1))


@pytest.mark.long
def test_hours_for_one_start_end_it_as_a_signal_does(three_layers: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    output = run(three_layers, 2, folder, "--run.stop_after_hours", "1e-9", code=1)
    assert "exitcode  : 75" in output  # torchrun's own is 1
    assert (folder / "checkpoints" / "step-00000001" / "state.json").exists()


def test_a_run_with_stages_resumes_in_the_right_one(
    alone: Path, three_layers: Path, tmp_path: Path
) -> None:
    staged = ("--masking.schedule", STAGES, "--run.save_every", "3")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    output = run(three_layers, 1, whole, *staged, "--run.keep_checkpoints", "99")
    assert "sequence from 25 % of the run on" in output
    assert max(losses(whole)) == STEPS
    shutil.copytree(whole, broken, ignore=shutil.ignore_patterns("hf"))
    for checkpoint in (broken / "checkpoints").iterdir():
        if int(checkpoint.name.rpartition("-")[2]) > BREAK:
            shutil.rmtree(checkpoint)
    run(three_layers, 1, broken, *staged, "--run.keep_checkpoints", "99")
    assert losses(broken) == losses(whole)
    first = STEPS // 4
    assert losses(alone)[first] == losses(whole)[first]
    assert losses(alone)[first + 1] != losses(whole)[first + 1]
