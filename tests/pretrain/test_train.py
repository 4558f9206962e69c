"""Whole runs in real processes: what they leave, and that ranks and layouts compute the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pretrain.batches import Batches
from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.export import exported_step
from pretrain.fault_tolerance.run_folder import RunFolder, open_checkpoint
from pretrain.initialise import initialise
from pretrain.model import LateMaskModel
from tests.pretrain.whole_runs import (
    ROOT,
    STAGES,
    STEPS,
    WARMUP,
    WARMUP_SIZES,
    assert_exported,
    command,
    losses,
    run,
)


def test_a_run_learns_and_leaves_what_the_contract_names(unbroken: Path) -> None:
    curve = losses(unbroken)
    assert sorted(curve) == list(range(1, STEPS + 1))
    assert curve[STEPS] < curve[1] - 0.5
    assert {p.name for p in unbroken.iterdir()} >= {
        *("config.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "hf")
    }
    assert_exported(unbroken)
    record = json.loads((unbroken / "metrics.jsonl").read_text().splitlines()[1])
    assert {"train/accuracy", "train/skipped_steps", "speed/checkpoint_stall"} <= record.keys()


def test_a_run_that_has_learned_nothing_says_so(three_layers: Path, tmp_path: Path) -> None:
    said = "WARNING this encoder knows no more than that"
    short = ("--budget.steps", "1")
    assert said in run(three_layers, 1, tmp_path / "still", *short, "--optimizer.lr", "1e-30")
    learned = ("--budget.steps", "400", "--optimizer.lr", "1e-2")
    assert said not in run(three_layers, 1, tmp_path / "learned", *learned)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_printed_are_lines_of_ours(
    precision: str, three_layers: Path, tmp_path: Path
) -> None:
    options = ("--budget.steps", "2", "--run.precision", precision)
    lines = run(three_layers, 1, tmp_path / "run", *options).splitlines()
    ours = re.compile(r"\d\d:\d\d:\d\d ")
    assert [line for line in lines if not ours.match(line)] == []
    assert f"cpu, {precision}" in "\n".join(lines)


@pytest.mark.parametrize("stage", [2, *(pytest.param(n, marks=pytest.mark.long) for n in (0, 3))])
def test_ranks_and_accumulation_give_the_gradient_of_one_batch(
    three_layers: Path, tmp_path: Path, stage: int
) -> None:
    folder = tmp_path / "run"
    plain = ("--model.dropout", "0", "--optimizer.gradient_clipping", "0", "--budget.steps", "1")
    zero = ("--run.deepspeed_config", f"configs/deepspeed/zero{stage}.json")
    run(three_layers, 2, folder, *plain, *zero, "--data.micro_batch_size", "2")
    config = load_config(folder / "config.yaml")
    data = ShardFolder(config.data.path)
    model = LateMaskModel(config.model, config.masking)
    initialise(model, config.run.seed)
    batches = Batches(data, seed=0, global_batch_size=16, micro_batch_size=16)
    batch = batches.micro_batch(0, 0, config.masking)
    loss = model(*(torch.from_numpy(array) for array in batch)).loss_sum / batch.labels.size
    loss.backward()
    assert losses(folder)[1] == pytest.approx(loss.item(), rel=1e-6)
    share = 1 - config.optimizer.betas[0]  # Adam's first moment after one step
    for name, moment in open_checkpoint(folder).tensors("exp_avg"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        torch.testing.assert_close(moment, share * gradient, rtol=1e-4, atol=1e-8, msg=name)


@pytest.mark.parametrize(
    "stage", ["1", *(pytest.param(n, marks=pytest.mark.long) for n in ("0", "2", "2_offload", "3"))]
)
def test_a_step_of_a_growing_batch_takes_the_gradient_of_its_own_sequences(
    three_layers: Path, tmp_path: Path, stage: str
) -> None:
    folder = tmp_path / "run"
    plain = ("--model.dropout", "0", "--optimizer.gradient_clipping", "0")
    still = ("--optimizer.lr", "1e-30", "--data.micro_batch_size", "2")
    zero = ("--run.deepspeed_config", f"configs/deepspeed/zero{stage}.json")
    run(three_layers, 2, folder, *plain, *still, *zero, *WARMUP)
    config = load_config(folder / "config.yaml")
    model = LateMaskModel(config.model, config.masking)
    initialise(model, config.run.seed)  # nothing moves the weights
    data = ShardFolder(config.data.path)
    position, decay = 0, config.optimizer.betas[0]
    moments = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step, size in enumerate(WARMUP_SIZES, start=1):
        batch = Batches(data, seed=0, global_batch_size=size, micro_batch_size=size).micro_batch(
            position, 0, config.masking
        )
        model.zero_grad()
        loss = model(*(torch.from_numpy(array) for array in batch)).loss_sum / batch.labels.size
        loss.backward()
        assert losses(folder)[step] == pytest.approx(loss.item(), rel=1e-6)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            moments[name] = decay * moments[name] + (1 - decay) * parameter.grad
        position += size
    assert losses(folder, "train/batch_size") == dict(enumerate(WARMUP_SIZES, start=1))
    for name, moment in open_checkpoint(folder).tensors("exp_avg"):
        torch.testing.assert_close(moment, moments[name], rtol=1e-4, atol=1e-8, msg=name)


def test_what_is_measured_on_request_changes_nothing(
    alone: Path, three_layers: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    measured = ("--run.time_parts", "true", "--run.profile_steps", "[1, 2]")
    more = ("--run.peak_tflops", "0.1", "--run.gradient_checkpointing", "true")
    run(three_layers, 1, folder, *measured, *more)
    assert losses(folder) == losses(alone)  # dropout's noise is drawn again in the backward pass
    record = json.loads((folder / "metrics.jsonl").read_text().splitlines()[2])
    parts = [record[f"time/{part}"] for part in ("forward", "backward", "update")]
    assert 0 < sum(parts) <= 1.01
    assert 0 < record["speed/mfu"] == pytest.approx(record["speed/tflops"] / 0.1)
    trace = json.loads((folder / "traces" / "rank-0.json").read_text())
    assert any("ProfilerStep" in e["name"] or "aten::" in e["name"] for e in trace["traceEvents"])


def test_a_finished_run_is_left_as_it_is(unbroken: Path, three_layers: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (unbroken / "checkpoints").rglob("*")}
    output = run(three_layers, 1, unbroken)
    assert "is finished" in output
    assert {p: p.stat().st_mtime_ns for p in (unbroken / "checkpoints").rglob("*")} == before


def test_a_finished_run_whose_budget_is_raised_is_exported_again(
    unbroken: Path, three_layers: Path, tmp_path: Path
) -> None:
    shutil.copytree(unbroken, tmp_path / "run")
    before = exported_step(tmp_path / "run" / "hf")
    run(three_layers, 1, tmp_path / "run", "--budget.steps", str(STEPS + 2))
    assert (before, exported_step(tmp_path / "run" / "hf")) == (STEPS, STEPS + 2)
    assert_exported(tmp_path / "run")
    assert not list((tmp_path / "run").glob(".hf*"))


def test_a_run_records_how_it_came_about(unbroken: Path) -> None:
    start = RunFolder(unbroken).starts()[0]  # other tests give the same command again
    git = ("git", "-C", str(ROOT), "rev-parse", "HEAD")
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    assert start["commit"] == (commit or None)
    assert "main.py --config" in start["command"]
    assert start["versions"]["torch"] == torch.__version__
    assert start["ranks"] == 2
    card = (unbroken / "hf" / "README.md").read_text()
    assert commit in card
    assert start["command"] in card
    assert "python -m pretrain.fill_mask hf" in card
    assert "{" not in card


def test_it_starts_from_another_folder(alone: Path, three_layers: Path, tmp_path: Path) -> None:
    """The default DeepSpeed config is the package's own, not a file of the current folder."""
    script = [sys.executable, str(ROOT / "pretrain/main.py"), "--config", str(three_layers)]
    subprocess.run(
        [*script, "--run.output_dir", "run"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    assert losses(tmp_path / "run") == losses(alone)


def test_another_config_in_the_same_folder_is_refused(unbroken: Path, three_layers: Path) -> None:
    output = run(three_layers, 1, unbroken, "--masking.rate", "0.3", code=2)
    assert "masking.rate: was 0.5, is 0.3" in output
    assert "Traceback" not in output


def test_the_deepspeed_launcher_starts_it(three_layers: Path, tmp_path: Path) -> None:
    """The command that users type, with its own --local_rank argument."""
    launcher = Path(sys.executable).with_name("deepspeed")
    environment = os.environ | {"PATH": f"{launcher.parent}:{os.environ['PATH']}"}
    options = ["--num_accelerators", "2", "--master_port", "29731"]
    script = command(three_layers, 1, tmp_path / "run", "--budget.steps", "2")[1:]
    result = subprocess.run(
        [str(launcher), *options, *script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert (tmp_path / "run" / "hf" / "config.json").exists()


@pytest.mark.long
def test_a_compiled_run_goes_as_the_eager_one(three_layers: Path, tmp_path: Path) -> None:
    fixed = ("--masking.schedule", STAGES, "--model.dropout", "0", "--run.precision", "fp32")
    run(three_layers, 2, tmp_path / "eager", *fixed)
    run(three_layers, 2, tmp_path / "compiled", *fixed, "--run.compile", "true")
    eager, compiled = losses(tmp_path / "eager"), losses(tmp_path / "compiled")
    assert eager.keys() == compiled.keys()
    for step, loss in eager.items():
        assert compiled[step] == pytest.approx(loss, rel=1e-4)
