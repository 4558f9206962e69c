"""The GPU kit end to end on a CPU: every part leaves its record, and no call repeats another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import correctness, curves
from benchmarks.gpu.records import Records
from benchmarks.gpu.report import fastest_eager
from benchmarks.gpu.time_limit import TimeLimit
from benchmarks.tiny_run import ROOT


def call(folder: Path, *more: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "benchmarks.gpu", *more]
    command += ["--output_dir", str(folder / "out"), "--runs_dir", str(folder / "runs")]
    process = subprocess.run(
        command,
        cwd=ROOT,
        # On a machine with a GPU, too, this is the trial on the CPU.
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == code, process.stderr[-3000:]
    return process.stdout + process.stderr


def records(folder: Path) -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in (folder / "out").glob("*.json")}


def test_without_a_gpu_it_says_so_in_a_line(tmp_path: Path) -> None:
    assert call(tmp_path, code=2).splitlines()[-1].startswith("error: no CUDA device")


@pytest.mark.long
def test_all_parts_leave_their_records_and_are_not_repeated(tmp_path: Path) -> None:
    report = call(tmp_path, "--size", "tiny")
    first = records(tmp_path)
    assert first.keys() == {"correctness", "steps", "curves"}

    tests = first["correctness"]["tests"]
    assert first["correctness"]["finished"] and len(tests) > 20
    assert {test["outcome"] for test in tests.values()} == {"skipped"}
    assert {test["reason"] for test in tests.values()} == {"no CUDA device"}

    (cell,) = first["steps"]["cells"].values()
    assert cell["complete"] and not cell["left_out"]
    assert len(cell["variants"]) == 8
    reference = fastest_eager(cell["variants"])
    assert reference is not None
    for variant in cell["variants"]:
        assert 0.01 < variant["tokens_per_second"] / reference < 100
        tokens = cell["micro_batch_size"] * cell["seq_len"]
        assert variant["tokens_per_second"] * variant["seconds"] == pytest.approx(tokens)
        assert variant["mfu"] is None  # nobody knows this processor's peak

    for run in first["curves"]["runs"].values():
        assert run["finished"]
        assert run["trained_seconds"] >= 60 * first["curves"]["train_minutes"]
        losses = [point["valid_loss"] for point in run["points"]]
        assert 0 < losses[-1] < 7
    assert report == (tmp_path / "out/report.md").read_text() + "\n"

    begin = time.monotonic()
    call(tmp_path, "--size", "tiny")
    assert time.monotonic() - begin < 30
    assert records(tmp_path) == first


@pytest.mark.long
def test_a_call_that_runs_out_of_time_leaves_records_for_the_next(tmp_path: Path) -> None:
    begin = time.monotonic()
    call(tmp_path, "--size", "tiny", "--minutes", "0.25")
    assert time.monotonic() - begin < 40
    found = records(tmp_path)
    assert not found.get("correctness", {}).get("finished")
    assert not found["steps"]["cells"]["tiny-32"]["complete"]
    assert (tmp_path / "out/report.md").read_text().startswith("# ")


def test_runs_take_turns_and_continue_in_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slice is a process that trains for the seconds it is given, here pretended."""
    order = []
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def train(
        name: str, _settings: object, _data: object, folder: Path, seconds: float, *_: object
    ) -> int:
        order.append((name, seconds))
        now[0] += seconds + 20
        folder.mkdir(exist_ok=True)
        before = curves._last_hours(folder)
        hours = before + seconds / 3600
        with (folder / "metrics.jsonl").open("a") as stream:
            point = {"step": 1, "tokens": 1, "flops": 1.0, "hours": hours, "valid/loss": 5.0}
            stream.write(json.dumps(point) + "\n")
        return 0 if hours * 60 > 2.99 else curves.STOPPED

    monkeypatch.setattr(curves, "_train", train)
    monkeypatch.setattr(curves, "write_text", lambda folder, _settings: folder)
    settings = curves.Settings(3.0, None, tiny=False, cuda=True)
    curves.run(Records(tmp_path / "out", "a machine"), settings, TimeLimit(200), tmp_path)
    assert [name for name, _ in order] == ["vanilla", "late"]
    assert order[0][1] == pytest.approx(order[1][1], rel=0.3)
    for _ in range(3):
        again = curves.Settings(9.0, None, tiny=False, cuda=True)  # what was begun keeps its budget
        curves.run(Records(tmp_path / "out", "a machine"), again, TimeLimit(400), tmp_path)
    runs = Records(tmp_path / "out", "a machine").get("curves")["runs"]
    assert all(run["finished"] for run in runs.values())
    assert {round(run["trained_seconds"]) for run in runs.values()} == {180}
    turns = [name for name, _ in order]
    assert turns == ["vanilla", "late"] * (len(turns) // 2)
    count = len(order)
    curves.run(Records(tmp_path / "out", "a machine"), settings, TimeLimit(400), tmp_path)
    assert len(order) == count


def test_outcomes_of_a_killed_process_are_those_of_the_tests_that_ended(tmp_path: Path) -> None:
    phases = [
        {"test": "a", "phase": "setup", "outcome": "passed"},
        {"test": "a", "phase": "call", "outcome": "failed", "reason": "assert 1 == 2"},
        {"test": "a", "phase": "teardown", "outcome": "passed"},
        {"test": "b", "phase": "setup", "outcome": "passed"},
    ]
    defaults = {"seconds": 0.5, "reason": "", "noted": {}}
    file = tmp_path / "tests.jsonl"
    lines = [json.dumps(defaults | phase) + "\n" for phase in phases]
    file.write_text("".join(lines) + '{"test": "b", "pha')
    assert correctness.outcomes(file) == {
        "a": {"outcome": "failed", "seconds": 1.5, "reason": "assert 1 == 2"}
    }
