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
from pretrain.metrics import Metrics, Speed, peak_tflops


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


def metrics(folder: Path, start: Progress, **settings: Any) -> Metrics:
    config = RunConfig(output_dir=str(folder), **settings)
    return Metrics(folder, config, writes=True, start=start, fraction=0.0)


def test_lines_after_the_checkpoint_and_half_lines_go(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 5}\n{"step": 6}\n{"step": 7, "tr')
    writer = metrics(tmp_path, Progress(step=5))
    writer.log(Progress(step=6, tokens=9), 0.5, {"train/loss": 2.0, "train/gradient_norm": 1 / 3})
    writer.log(Progress(step=7), 0.5, {"train/loss": float("nan")})
    writer.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 5, 6, 7]
    assert lines[2]["train/gradient_norm"] == 1 / 3
    assert lines[3]["train/loss"] is None
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_tracker_gets_the_same_and_goes_on_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = FakeTracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)  # type: ignore[arg-type]
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"masking": {"rate": 0.4}}))
    writer = metrics(folder, Progress(), report_to=["wandb"])
    writer.log(Progress(step=3), 0.1, {"train/loss": 2.5})
    writer.close()
    assert (tracker.opened["id"], tracker.opened["resume"]) == ("mine", "allow")
    assert tracker.opened["config"] == {"masking": {"rate": 0.4}}
    ((step, record),) = tracker.records
    assert (step, record["train/loss"], tracker.finished) == (3, 2.5, True)


def test_a_tracker_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PretrainError, match=r"pip install 'latemask\[tracking\]'"):
        metrics(tmp_path, Progress(), report_to=["wandb"])


def test_speeds_leave_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("pretrain.metrics.time.monotonic", lambda: clock[0])
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
