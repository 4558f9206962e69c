"""Memory against the paper's megabytes, and against the files of real runs."""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from safetensors.numpy import load_file
from transformers import AutoModel

from finetune.masks.folder import MaskFolder
from reproduce.weight_masks.command import main


def test_the_papers_figures(tmp_path: Path, read: Callable) -> None:
    main(["memory", "--output_dir", str(tmp_path)])
    rows, finding = read(tmp_path / "memory")
    megabytes = {(r["storage"], int(r["tasks"])): int(r["bytes"]) / 1e6 for r in rows}
    # BERT-base, blocks 2-11 and the pooler masked.
    expected = {
        ("finetuned", 1): 437.9,
        ("finetuned", 2): 875.9,
        ("finetuned", 11): 4817.2,
        ("masks, bits", 1): 446.9,
        ("masks, bits", 2): 455.8,
        ("masks, bits", 11): 536.1,
    }
    assert {key: round(megabytes[key], 1) for key in expected} == expected
    # 0.286 bits a weight at 5 % zeros.
    assert megabytes["masks, coded", 1] - megabytes["finetuned", 1] == pytest.approx(2.55, abs=0.01)
    values = {(r["storage"], r["tasks"]): int(r["parameters"]) for r in rows}
    assert values["masks, bits", "1"] - values["finetuned", "1"] == 71_368_704
    assert finding["verdict"] == "agrees" and len(rows) == 33


def test_files(runs: Path, tiny_model: Path, tmp_path: Path, read: Callable) -> None:
    command = ["memory", "--output_dir", str(tmp_path), "--model_name_or_path", str(tiny_model)]
    main([*command, "--runs", str(runs)])
    rows, _ = read(tmp_path / "memory")
    found = {(r["storage"], r["tasks"]): int(r["bytes"]) for r in rows if r["source"] == "files"}
    assert {tasks for _, tasks in found} == {"1", "2"}
    backbone = 4 * AutoModel.from_pretrained(tiny_model, add_pooling_layer=False).num_parameters()

    def sizes(pattern: str) -> int:
        return round(
            sum(
                median(p.stat().st_size for p in runs.glob(f"{task}/{pattern}"))
                for task in ("library", "rte")
            )
        )

    assert found["finetuned", "2"] == sizes("finetune/*/model.safetensors")
    coded = sizes("mask/*/adapter_model.safetensors")
    assert found["masks, coded", "2"] == pytest.approx(backbone + coded, abs=2)
    bits = 0
    for task in ("library", "rte"):
        folder = runs / task / "mask/seed-1"
        stored = load_file(folder / "adapter_model.safetensors")
        bits += sum(t.nbytes for n, t in stored.items() if n.endswith(("_weight", "_bias")))
        bits += sum(-(-mask.size // 8) for _, mask in MaskFolder.open(folder).masks())
    assert found["masks, bits", "2"] == backbone + bits
