"""Late masking against vanilla 15 %: two training runs in turn, each with the same training time.

The runs are `pretrain/main.py` on the same shards. Each works for a slice of the time, saves, and
makes way for the other, so that both are always about equally far; the next call continues them.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.gpu.records import Records
from benchmarks.gpu.time_limit import SAVE_SECONDS, TimeLimit
from benchmarks.gpu.time_limit import run as run_process
from benchmarks.tiny_run import ROOT, markov_sequences, write_folder
from pretrain.config_parser import load_config

NAMES = ("vanilla", "late")
SLICE_SECONDS = 90.0
STOPPED = 75  # pretrain/main.py's exit code


@dataclass(frozen=True)
class Settings:
    """Of both runs."""

    train_minutes: float
    """Budget of each, over all its slices."""
    data: Path | None
    """Shards; None: made-up text."""
    tiny: bool
    cuda: bool

    @property
    def overhead(self) -> float:
        """Seconds that a slice takes besides training, before the first one has told."""
        return 12.0 if self.tiny else 30.0

    @property
    def shortest(self) -> float:
        """Seconds of training for which a slice is worth its overhead."""
        return 0.5 if self.tiny else 10.0


def run(records: Records, settings: Settings, limit: TimeLimit, runs_dir: Path) -> None:
    """Train in slices while there is time, and keep both curves after each."""
    record = records.get("curves") or {"train_minutes": settings.train_minutes, "runs": {}}
    if all(record["runs"].get(name, {}).get("finished") for name in NAMES):
        return
    # The schedule hangs on the budget: what was begun keeps its own.
    settings = replace(settings, train_minutes=record["train_minutes"])
    data = settings.data.absolute() if settings.data else write_text(runs_dir / "text", settings)
    record |= {"data": str(settings.data or "made-up text"), "model": _model(settings)}
    overhead = settings.overhead
    for name, entry in record["runs"].items():
        if not entry["finished"]:  # the folder may be another one, or missing
            entry["trained_seconds"] = 3600 * _last_hours(runs_dir / name)
    while pending := [n for n in NAMES if not record["runs"].get(n, {}).get("finished")]:
        name = min(pending, key=lambda name: _trained(record, name))
        left = 3600 * _budget_hours(settings) - _trained(record, name)
        behind = max(_trained(record, other) for other in NAMES) - _trained(record, name)
        catches_up = behind >= settings.shortest
        # Else the other one follows, and the time must reach for an equal slice of its own.
        share = 1 if catches_up else len(pending)
        room = (limit.left - SAVE_SECONDS) / share - overhead
        seconds = min(behind if catches_up else SLICE_SECONDS, SLICE_SECONDS, left, room)
        if seconds < min(settings.shortest, left):
            break
        before, begin = _trained(record, name), time.monotonic()
        folder = runs_dir / name
        code = _train(name, settings, data, folder, seconds, limit)
        points = read_points(folder)
        entry = record["runs"].setdefault(name, {"points": [], "slices": []})
        if _end(points) >= _end(entry["points"]):
            entry["points"] = points
        entry["trained_seconds"] = 3600 * _last_hours(folder)
        entry["finished"] = code == 0
        wall = time.monotonic() - begin
        entry["slices"].append({"seconds": round(wall, 1), "exit_code": code})
        overhead = max(0.0, wall - (entry["trained_seconds"] - before))
        if code not in (0, STOPPED, None):
            entry["error"] = (runs_dir / f"{name}.log").read_text()[-1500:]
            records.put("curves", record)
            break
        entry.pop("error", None)
        records.put("curves", record)


def forget(runs_dir: Path) -> None:
    """Remove the runs, so that the next ones start from scratch."""
    for name in NAMES:
        shutil.rmtree(runs_dir / name, ignore_errors=True)


def _train(
    name: str, settings: Settings, data: Path, folder: Path, seconds: float, limit: TimeLimit
) -> int | None:
    """One slice in a process of its own; its exit code, or None where it had to be killed."""
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(_config(name, settings, data, folder), sort_keys=False))
    command = [ROOT / "pretrain/main.py", "--config", config]
    command += ["--run.stop_after_hours", seconds / 3600]
    log = folder.with_suffix(".log")
    return run_process(command, log, limit, stop_seconds=SAVE_SECONDS)


def _config(name: str, settings: Settings, data: Path, folder: Path) -> dict[str, Any]:
    batch = 16 if settings.tiny else 256
    masking = {"rate": 0.15}
    if name == "late":  # with as many layers as base.yaml has, or its share of them
        masking = asdict(load_config(ROOT / "configs/pretrain/base.yaml").masking)
        masking |= {"insert_layer": 1} if settings.tiny else {}
    return {
        "data": {"path": str(data), "global_batch_size": batch, "micro_batch_size": batch},
        "masking": masking,
        "model": _model(settings) | {"max_position_embeddings": _seq_len(data) + 2},
        "optimizer": {"lr": 1e-3, "warmup": 0.06, "gradient_clipping": 1.0},
        "budget": {"hours": _budget_hours(settings)},
        "run": {
            "output_dir": str(folder),
            "log_every": 20,
            "eval_every": 20 if settings.tiny else 100,
            "eval_sequences": 64 if settings.tiny else 1024,
            "keep_best": False,
            "keep_checkpoints": 1,
            "compile": settings.cuda and not settings.tiny,
        },
    }


def _model(settings: Settings) -> dict[str, Any]:
    width, depth = (32, 2) if settings.tiny else (512, 12)
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // (16 if settings.tiny else 64),
        "intermediate_size": 4 * width,
        "dropout": 0.0,
        "initializer_range": None,
    }


def _budget_hours(settings: Settings) -> float:
    return settings.train_minutes / 60


def _seq_len(data: Path) -> int:
    return int(json.loads((data / "manifest.json").read_text())["seq_len"])


def _trained(record: dict[str, Any], name: str) -> float:
    return float(record["runs"].get(name, {}).get("trained_seconds", 0.0))


def _metrics(folder: Path) -> list[dict[str, Any]]:
    file = folder / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def _last_hours(folder: Path) -> float:
    return max((record["hours"] for record in _metrics(folder)), default=0.0)


def _end(points: list[dict[str, float]]) -> float:
    return points[-1]["hours"] if points else 0.0


def read_points(folder: Path) -> list[dict[str, float]]:
    """Every evaluation of a run."""
    return [
        {key: record[key] for key in ("step", "tokens", "flops", "hours")}
        | {"valid_loss": record["valid/loss"]}
        for record in _metrics(folder)
        if record.get("valid/loss") is not None
    ]


def write_text(folder: Path, settings: Settings) -> Path:
    """Sequences in which each token is followed by one of four, frequent tokens by frequent ones.

    Written once: a folder without a manifest is one that was broken off.
    """
    if (folder / "manifest.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    vocab_size, seq_len, count = (300, 32, 512) if settings.tiny else (8192, 128, 100_000)
    draw = np.random.default_rng(0)
    ordinary = vocab_size - 5  # <s> <pad> </s> <unk> come first, <mask> last
    follows = 4 + (ordinary * draw.random((vocab_size, 4)) ** 3).astype(np.int64)
    rows = {
        "train": [markov_sequences(draw, count, seq_len, follows) for _ in range(2)],
        "valid": [markov_sequences(draw, 64 if settings.tiny else 1024, seq_len, follows)],
    }
    return write_folder(folder, rows, vocab_size, block_sequences=1024)
