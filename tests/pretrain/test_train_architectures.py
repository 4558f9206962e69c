"""Whole runs of the encoders that aren't RoBERTa, in real processes on one rank."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from pretrain.config_parser import load_config
from pretrain.export import load
from pretrain.fault_tolerance.run_folder import open_checkpoint
from pretrain.model import LateMaskModel
from tests.pretrain.conftest import SEQ_LEN

ROOT = Path(__file__).parents[2]
STEPS = 12
# [MASK]s enter later from the middle of the run on: only then is modernbert's factor trained.
LATER = ["--masking.insert_layer", "0", "--masking.schedule", "[{start: 0.5, insert_layer: 1}]"]
OVERRIDES = {
    "modernbert": [
        *(
            "--model.local_attention",
            "8",
            "--model.max_position_embeddings",
            str(SEQ_LEN),
            "--run.gradient_checkpointing",
            "true",
        ),
        *LATER,
    ],
    "bert": ["--model.max_position_embeddings", str(SEQ_LEN), "--masking.late_layers", "1"],
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_run_learns_and_stock_transformers_loads_it(
    name: str, tiny_config_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "pretrain/main.py", "--config", str(tiny_config_file)]
    command += ["--run.output_dir", str(run), "--model.architecture", name, *OVERRIDES[name]]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, timeout=300,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    assert len(losses) == STEPS
    assert losses[-1] < losses[0] - 0.3

    config, checkpoint = load_config(run / "config.yaml"), open_checkpoint(run)
    model = LateMaskModel(config.model, config.masking.at(1.0)).eval()
    checkpoint.load_into(model)
    weights = checkpoint.weights()
    stock = AutoModel.from_pretrained(run / "hf").eval()
    assert stock.config.model_type == name
    ids = torch.arange(4, 4 + SEQ_LEN)[None]
    with torch.no_grad():
        expected = stock(ids).last_hidden_state
        torch.testing.assert_close(model.encode(ids), expected, atol=1e-5, rtol=1e-5)
    assert AutoTokenizer.from_pretrained(run / "hf").pad_token_id == stock.config.pad_token_id
    AutoModelForSequenceClassification.from_pretrained(run / "hf")
    for key, tensor in load(run / "hf").named_parameters():
        assert torch.equal(tensor, weights[key]), key
    if name == "modernbert":
        assert (weights["mask_scale"] != 1).all()
