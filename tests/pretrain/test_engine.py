"""Gradients as the engine accumulates them, and what a step waits for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks.tiny_run import ROOT
from pretrain.batches import Batches
from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.main import resolve
from pretrain.model import LateMaskModel


@pytest.fixture
def after_a_step(tiny_config_file: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What engine_program.py saves for 32 sequences in so many micro-batches."""

    def run(micro_batches: int, stage: int, precision: str) -> dict[str, Any]:
        content = yaml.safe_load(tiny_config_file.read_text())
        content["data"] |= {"global_batch_size": 32, "micro_batch_size": 32 // micro_batches}
        content["model"]["dropout"] = 0.0
        content["optimizer"]["gradient_clipping"] = 0.0
        content["run"] |= {
            "output_dir": str(tmp_path / "run"),
            "precision": precision,
            "deepspeed_config": str(ROOT / f"configs/deepspeed/zero{stage}.json"),
        }
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(content))
        out = tmp_path / f"{micro_batches}-{stage}-{precision}.pt"
        program = [sys.executable, "-m", "tests.pretrain.engine_program"]
        command = [*program, str(file), str(micro_batches), str(out)]
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # as here: bf16 products depend on it
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
        found: dict[str, Any] = torch.load(out)
        return found

    return run


def relative_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    names = sorted(expected)
    a = torch.cat([found[name].flatten() for name in names]).double()
    b = torch.cat([expected[name].flatten() for name in names]).double()
    return float((a - b).norm() / b.norm())


def gradient(
    weights: dict[str, torch.Tensor], config_file: Path, dtype: torch.dtype, micro_batches: int
) -> dict[str, torch.Tensor]:
    """Of the mean loss of 32 sequences: each micro-batch's in `dtype`, their sum in fp64."""
    config = load_config(config_file)
    data = ShardFolder(config.data.path)
    config = resolve(config, data)
    model = LateMaskModel(config.model, config.masking)
    model.load_state_dict(weights)
    model.to(dtype)
    size = 32 // micro_batches
    batches = Batches(data, seed=0, global_batch_size=32, micro_batch_size=size)
    sums: dict[str, torch.Tensor] = {}
    for index in range(micro_batches):
        batch = batches.micro_batch(0, index, config.masking)
        model.zero_grad()
        loss = model(*(torch.from_numpy(array) for array in batch)).loss_sum / batch.labels.size
        (loss / micro_batches).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                sums[name] = sums.get(name, 0.0) + parameter.grad.double().flatten()
    return sums


@pytest.mark.parametrize("stage", [1, *(pytest.param(n, marks=pytest.mark.long) for n in (2, 3))])
def test_bf16_gradients_of_many_micro_batches_are_summed_in_fp32(
    after_a_step: Callable[..., dict[str, Any]], tmp_path: Path, stage: int
) -> None:
    found = after_a_step(32, stage, "bf16")
    moments = {name: moment / 0.1 for name, moment in found["moments"].items()}  # 1 - beta 1
    # The very terms, summed exactly; a sum in bf16 is off by more than half a percent.
    file = tmp_path / "config.yaml"
    terms = gradient(found["weights"], file, torch.bfloat16, micro_batches=32)
    assert relative_error(moments, terms) < 1e-3
    # And so one large batch's, but for what bf16 costs each term.
    whole = gradient(found["weights"], file, torch.float32, micro_batches=1)
    assert relative_error(moments, whole) < 0.02


def test_a_step_reads_a_number_on_the_host_only_where_deepspeed_looks_at_the_norm(
    after_a_step: Callable[..., dict[str, Any]],
) -> None:
    few, many = (after_a_step(n, 1, "fp32")["reads"] for n in (2, 8))
    assert (few, many) == (1, 1)  # in the update, not in each micro-batch
