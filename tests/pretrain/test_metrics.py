"""What a run writes about itself: lines, a tracker, speeds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pretrain.budget import Progress
from pretrain.config import RunConfig
from pretrain.errors import PretrainError
from pretrain.fault_tolerance.status import Verdict
from pretrain.metrics import Recorder
from pretrain.timing import Speed, peak_tflops


class FakeTracker:
    """Stands for the wandb module and its run."""

    def __init__(self) -> None:
        self.opened: dict[str, Any] = {}
        self.records: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def init(self, **keywords: Any) -> FakeTracker:
        self.opened = keywords
        return self

    def log(self, record: dict[str, Any], step: int) -> None:
        self.records.append((step, record))

    def finish(self) -> None:
        self.finished = True


def metrics(folder: Path, start: Progress, **settings: Any) -> Recorder:
    config = RunConfig(output_dir=str(folder), **settings)
    return Recorder(folder, config, writes=True, start=start, fraction=0.0)


def test_lines_after_the_checkpoint_and_half_lines_go(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 5}\n{"step": 6}\n5\n\xff\n{"step": 7, "tr')
    writer = metrics(tmp_path, Progress(step=5))
    writer.log(Progress(step=6, tokens=9), 0.5, {"train/loss": 2.0, "train/gradient_norm": 1 / 3})
    writer.log(Progress(step=7), 0.5, {"train/loss": float("nan")})
    writer.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 5, 6, 7]
    assert lines[2]["train/gradient_norm"] == 1 / 3
    assert lines[3]["train/loss"] is None
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_tracker_gets_the_same_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = FakeTracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)  # type: ignore[arg-type]
    ids = []
    for place in ("here", "here", "there"):
        folder = tmp_path / place / "mine"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"masking": {"rate": 0.4}}))
        writer = metrics(folder, Progress(), report_to=["wandb"])
        writer.log(Progress(step=3), 0.1, {"train/loss": 2.5})
        writer.close()
        assert (tracker.opened["name"], tracker.opened["resume"]) == ("mine", "allow")
        assert tracker.opened["config"] == {"masking": {"rate": 0.4}}
        ids.append(tracker.opened["id"])
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]  # another run in a folder of the same name
    step, record = tracker.records[0]
    assert (step, record["train/loss"], tracker.finished) == (3, 2.5, True)


def verdict(loss: float, num_predicted: float) -> Verdict:
    return Verdict(loss=loss, accuracy=loss / 10, num_predicted=num_predicted, fault=None)


def test_a_line_has_the_mean_over_the_steps_since_the_last_one(tmp_path: Path) -> None:
    whole = metrics(tmp_path, Progress())
    for step in (verdict(2.0, 100), verdict(float("nan"), 100), verdict(5.0, 50)):
        whole.add_step(step)
    # What a checkpoint holds at this point lets another start write the same line.
    resumed = Recorder(
        tmp_path / "resumed",
        RunConfig(output_dir=""),
        writes=False,
        start=Progress(),
        fraction=0.0,
        sums=dict(whole.sums),
    )
    for recorder in (whole, resumed):
        recorder.add_step(verdict(1.0, 100))
    assert whole.sums == resumed.sums
    whole.log_steps(Progress(step=4), 0.5, {"train/lr": 1e-3}, stalled=0.0)
    whole.add_step(verdict(7.0, 10))
    whole.log_steps(Progress(step=5), 0.6, {"train/lr": 1e-3}, stalled=0.0)
    whole.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["train/loss"] == pytest.approx((2 * 100 + 5 * 50 + 1 * 100) / 250)
    assert lines[0]["train/accuracy"] == pytest.approx(lines[0]["train/loss"] / 10)
    assert lines[1]["train/loss"] == pytest.approx(7.0)


def test_a_run_that_goes_back_loses_its_lines_from_there_on(tmp_path: Path) -> None:
    writer = metrics(tmp_path, Progress())
    for step in (1, 2, 3):
        writer.log(Progress(step=step), 0.1 * step, {"train/loss": float(step)})
    writer.rewind(Progress(step=1), 0.1, {"loss": 4.0, "num_predicted": 2.0, "accuracy": 1.0})
    writer.log_steps(Progress(step=2), 0.2, {}, stalled=0.0)
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["train/loss"]) for line in lines] == [(1, 1.0), (2, 2.0)]


def test_a_tracker_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PretrainError, match=r"pip install 'latemask\[tracking\]'"):
        metrics(tmp_path, Progress(), report_to=["wandb"])


def test_speeds_leave_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("pretrain.timing.time.monotonic", lambda: clock[0])
    speed = Speed(Progress(tokens=100, flops=1e12))
    clock[0] += 3  # steps
    with speed.waiting():
        clock[0] += 1
    with speed.pause():
        clock[0] += 60
    found = speed.take(Progress(tokens=300, flops=3e12), stalled=0.5, peak=100.0)
    assert found == pytest.approx(
        {
            "speed/tokens_per_second": 200 / 4,
            "speed/tflops": 2 / 4,
            "speed/mfu": 2 / 4 / 100,
            "speed/data_wait": 1 / 4,
            "speed/checkpoint_stall": 0.5 / 4,
        }
    )
    clock[0] += 1
    again = speed.take(Progress(tokens=300, flops=3e12), stalled=0.5, peak=None)
    assert again["speed/checkpoint_stall"] == again["speed/tokens_per_second"] == 0
    assert "speed/mfu" not in again


def test_peaks_are_known_by_name_for_bf16_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, gpu = RunConfig(output_dir=""), torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA H100 PCIe")
    assert peak_tflops(settings, gpu, "bf16") == 756
    assert peak_tflops(settings, gpu, "fp32") is None
    assert peak_tflops(RunConfig(output_dir="", peak_tflops=9.0), gpu, "fp32") == 9.0
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Something New")
    assert peak_tflops(settings, gpu, "bf16") is None


def test_a_line_fits_a_hundred_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    writer = metrics(tmp_path, Progress())
    values = {
        "train/loss": 1.29834, "train/accuracy": 0.71234, "train/gradient_norm": 0.98765,
        "train/lr": 2.3456e-5, "speed/tokens_per_second": 12_345_678.9, "speed/tflops": 4123.4,
        "speed/memory_gib": 71.23, "speed/mfu": 0.41234,
    }  # fmt: skip
    writer.log(Progress(step=1_234_567), 0.999, values)
    assert len(f"12:34:56 {caplog.messages[-1]}") <= 100
    assert "loss 1.298" in caplog.messages[-1]
    assert "12.35M" in caplog.messages[-1]
