"""Continued pretraining as a user does it: pipeline with the source's tokenizer, two steps, export.

Each stage is a process; only files pass between them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from tests.published_models import write_published

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "configs/pretrain/continue.yaml"
TEXT = "the rivers of the gardens are learned"


def go(*command: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def write_corpus(folder: Path, source: Path) -> Path:
    """A pipeline config over a few hundred short documents, all different."""
    folder.mkdir()
    words = ["mask", "learned", "weights", "rivers", "gardens", "letters", "tokens", "Viktor"]
    lines = [
        " ".join(words[(index * step + index // 7) % 8] for step in range(1, 30)) + f" {index}."
        for index in range(300)
    ]
    (folder / "text.txt").write_text("\n".join(lines))
    config = {
        "sources": [{"kind": "text", "paths": [str(folder / "text.txt")], "documents": "line"}],
        "seq_len": 32,
        "cleaning": {"min_characters": 20},
        "split": {"valid": 0.1},
        "tokenizer": {"path": str(source)},
        "shards": {"train": 1, "valid": 1},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(config))
    return folder / "pipeline.yaml"


@pytest.mark.long
@pytest.mark.parametrize("name", ["modernbert", "camembert"])  # test_source.py has them all
def test_a_published_encoder_is_continued(name: str, tmp_path: Path) -> None:
    source, data, run = (tmp_path / part for part in ("source", "data", "run"))
    stock = write_published(source, name).base_model.state_dict()
    config = write_corpus(tmp_path / "corpus", source)
    go("-m", "pipeline", "--config", config, "--output", data, "--direct_num_workers", 1)
    assert "all as the manifest says" in go("-m", "pipeline", "verify", data)

    command = [
        "pretrain/main.py", "--config", SETTINGS, "--run.init_from", source, "--data.path", data,
        "--run.output_dir", run, "--run.compile", "false", "--run.precision", "fp32",
        "--data.global_batch_size", 8, "--data.micro_batch_size", 8,
        "--run.eval_sequences", 8,
    ]  # fmt: skip
    go(*command, "--budget.steps", 2)
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["masking"]["insert_layer"] == 3  # three quarters of four
    found = load_file(run / "hf/model.safetensors")
    moved = 0
    for key, tensor in found.items():
        assert tensor.shape == stock[key].shape, key
        assert (tensor - stock[key]).abs().max() < 0.05, key  # two steps from the source
        moved += not torch.equal(tensor, stock[key])
    assert moved > len(found) / 2
    theirs, ours = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(run / "hf")
    assert ours(TEXT).data == theirs(TEXT).data
    assert ours.get_vocab() == theirs.get_vocab()
    AutoModel.from_pretrained(run / "hf")

    shutil.rmtree(source)  # a restart needs the run's own folder only
    go(*command, "--budget.steps", 3)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(record["step"] for record in records) == 3
    out = go("-m", "pretrain.fill_mask", run / "hf", "--text", f"the {ours.mask_token} learned")
    assert json.loads(out.splitlines()[-1])["masks"]
    AutoModelForMaskedLM.from_pretrained(run / "hf")
