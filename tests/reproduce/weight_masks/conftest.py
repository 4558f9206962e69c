"""Finished runs of two tasks, finetuned and masked, on the tiny random encoder."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.glue import main

SEEDS = ["1", "2"]


@pytest.fixture(scope="session")
def flags(tiny_model: Path, tiny_tasks: Path) -> list[str]:
    """Flags of `finetune.glue` for short trainings that learn something."""
    return [
        *("--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)),
        *("--task_name", "library", "rte", "--seed", *SEEDS, "--max_seq_length", "16"),
        *("--max_steps", "15", "--per_device_train_batch_size", "16", "--learning_rate", "0.02"),
        *("--bf16", "false", "--initial_sparsity", "0.2"),
    ]


@pytest.fixture(scope="session")
def runs(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of `finetune.glue`: library and rte, finetune and mask, two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    main([*flags, "--method", "finetune", "mask", "--output_dir", str(folder)])
    return folder


@pytest.fixture(scope="session")
def read() -> Callable[[Path], tuple[list[dict[str, str]], dict[str, str]]]:
    """The rows and the finding of a figure, given its path without a suffix."""

    def read_both(stem: Path) -> tuple[list[dict[str, str]], dict[str, str]]:
        assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        with stem.with_suffix(".csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        finding = json.loads(stem.with_suffix(".json").read_text())
        assert set(finding) >= {"claim", "paper", "ours", "verdict"} and finding["ours"]
        return rows, finding

    return read_both


@pytest.fixture(scope="session")
def result() -> Callable[[Path], dict]:
    """What a run's folder says it found."""
    return lambda folder: json.loads((folder / "all_results.json").read_text())
