"""Whole pretraining runs in processes of their own, as tests start and read them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from pretrain.config_parser import load_config
from pretrain.fault_tolerance.run_folder import open_checkpoint
from pretrain.model import LateMaskModel

ROOT = Path(__file__).parents[2]
STEPS, BREAK = 12, 6  # of `unbroken`, and where `broken_off` ends
STAGES = "[{start: 0.25, rate: 0.3}, {start: 0.75, insert_layer: 1}]"
# 4, 8 and 12 sequences for 2 steps each, then 16.
WARMUP = ("--data.initial_batch_size", "4", "--data.batch_warmup", "0.5")
WARMUP_SIZES = [4, 4, 8, 8, 12, 12] + [16] * 6


def command(config_file: Path, ranks: int, output: Path, *overrides: str) -> list[str]:
    script = ["pretrain/main.py", "--config", str(config_file), "--run.output_dir", str(output)]
    if ranks > 1:  # a free port each: runs of other tests must not meet
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        return [sys.executable, *launcher, *script, *overrides]
    return [sys.executable, *script, *overrides]


def start(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*args),  # type: ignore[arg-type]
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(*args: object, code: int = 0) -> str:
    process = start(*args)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output[-4000:]
    return output


def losses(folder: Path, kind: str = "train/loss") -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record[kind] for record in records if kind in record}


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.jsonl").exists() and max(losses(folder), default=0) >= step:
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"step {step} never came: {process.communicate()[0][-3000:]}")


def broken_off(unbroken: Path, folder: Path) -> Path:
    """A copy as if the run had been killed after step 6."""
    shutil.copytree(unbroken, folder, ignore=shutil.ignore_patterns("hf"))
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > BREAK:
            shutil.rmtree(checkpoint)
    return folder


def assert_exported(folder: Path) -> None:
    """Stock transformers computes what the newest checkpoint's weights compute."""
    checkpoint = open_checkpoint(folder)
    config = load_config(folder / "config.yaml")
    model = LateMaskModel(config.model, config.masking).eval()
    checkpoint.load_into(model)
    stock = AutoModel.from_pretrained(folder / "hf", add_pooling_layer=False).eval()
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        expected, found = stock(ids).last_hidden_state, model.encode(ids)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    words = stock.get_input_embeddings().weight
    assert torch.equal(words, model.decoder[: config.model.known_vocab_size])  # tied, and stays so
