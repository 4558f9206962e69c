"""Whole runs in processes of their own: a run that was broken off ends with the same bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.tiny_run import ROOT, Run, write_data
from pretrain.fault_tolerance.run_folder import open_checkpoint

STEPS, BREAK = 6, 3
LAYOUTS = {
    "zero1": "zero1",
    "zero1_compiled": "zero1",
    "zero2": "zero2",
    "zero2_offload": "zero2_offload",
    "zero3": "zero3",
}


@pytest.fixture(scope="module")
def runs(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NAME/ and NAME-resumed/ for each of `LAYOUTS`.

    All train side by side: most of their time goes into starting.
    """
    folder = tmp_path_factory.mktemp("resume")
    data = write_data(folder / "data")
    ranks = max(1, min(2, torch.cuda.device_count()))
    whole = {
        name: Run(
            data,
            folder / name,
            *("--run.deepspeed_config", ROOT / f"configs/deepspeed/{zero}.json"),
            *("--run.precision", "bf16", "--run.compile", name.endswith("compiled")),
            *("--budget.steps", STEPS, "--run.save_every", BREAK, "--run.keep_checkpoints", 99),
            *("--run.rank_seconds", 120),
            ranks=ranks,
            launcher="torchrun",
        )
        for name, zero in LAYOUTS.items()
    }
    finish(whole.values())
    resumed = []
    for name, run in whole.items():
        copy = folder / f"{name}-resumed"
        if not (run.folder / "checkpoints").exists():
            continue
        shutil.copytree(run.folder, copy, ignore=shutil.ignore_patterns("hf", f"step-*{STEPS}"))
        resumed.append(Run(data, copy, *run.overrides, ranks=ranks, launcher="torchrun"))
    finish(resumed)
    return folder


def finish(runs: object) -> None:
    """Start all, then wait for all; what failed is left for its own test to tell."""
    started: list[Run] = list(runs)  # type: ignore[call-overload]
    for run in started:
        run.start()
    for run in started:
        try:
            run.wait(240)
        except RuntimeError:
            continue


def losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: r["train/loss"] for r in records if "train/loss" in r}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_resumed_run_ends_with_the_same_bits(runs: Path, name: str) -> None:
    whole, resumed = runs / name, runs / f"{name}-resumed"
    assert (whole / "hf").exists(), (runs / f"{name}.log").read_text()[-3000:]
    output = (runs / f"{name}-resumed.log").read_text()
    assert f"step-{BREAK:08d} (step {BREAK}" in output, output[-3000:]
    assert len(losses(whole)) == STEPS
    assert losses(resumed) == losses(whole)
    expected, found = (
        open_checkpoint(folder / "checkpoints" / f"step-{STEPS:08d}") for folder in (whole, resumed)
    )
    for parameter, shape in expected.state.shapes.items():
        count = torch.Size(shape).numel()
        for kind in expected.kinds(parameter):
            values = [source.read(kind, parameter, 0, count) for source in (expected, found)]
            assert torch.equal(*values), f"{kind} of {parameter}"
