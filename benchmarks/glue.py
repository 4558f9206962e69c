"""Finetuning a short-sentence task: `finetune.glue` against the Trainer as `run_glue.py` uses it.

    python -m benchmarks.glue --model_name_or_path MINILM --data_dir DATA [--task_name trec]

Three ways over the same rows, steps and batch size: `run_glue.py`'s defaults (every row padded to
128, a random order, fp32), ours in fp32 (batches of like length, padded to their longest row), and
ours in the precision the machine is fast at. Timed are the training steps and an evaluation; the
ways take turns, and the medians over the repeats count. Writes `docs/benchmarks/glue.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import TrainingArguments

from benchmarks.machine import describe
from benchmarks.plain_trainer import make_trainer
from finetune.console import set_up
from finetune.jobs.flags import EVERY_METHOD
from finetune.jobs.precision import bf16_is_fast
from finetune.jobs.train import Job, run_job
from finetune.tasks import TaskData, load_task
from finetune.tasks.encode import Backbone, EncodedTask, encode_task

LENGTH, BATCH = 128, 32
WAYS = ("run_glue.py's defaults", "finetune.glue, fp32", "finetune.glue")


def run_plain(data: TaskData, model: str, flags: dict, folder: Path) -> tuple[float, float]:
    """Seconds of training and of evaluation with the stock Trainer, all rows padded to 128."""
    trainer = make_trainer(data, model, LENGTH, TrainingArguments(output_dir=str(folder), **flags))
    trained = trainer.train().metrics["train_runtime"]
    begin = time.perf_counter()
    trainer.evaluate()
    return trained, time.perf_counter() - begin


def run_ours(
    encoded: EncodedTask, backbone: Backbone, flags: dict, folder: Path
) -> tuple[float, float]:
    """The same through a job of finetune.glue."""
    training = EVERY_METHOD | flags | {"do_train": True, "do_eval": True}
    job = Job(
        task=encoded.data.name,
        method="finetune",
        seed=0,
        folder=folder,
        training=training,
        settings={},
    )
    results = run_job(job, backbone, encoded)
    return results["train_runtime"], results["eval_runtime"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--task_name", default="trec")
    parser.add_argument("--train_rows", type=int, default=320)
    parser.add_argument("--eval_rows", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/glue.md"))
    parser.add_argument("--json", type=Path, help="every figure, as JSON")
    options = parser.parse_args()
    set_up()
    data = load_task(options.task_name, options.data_dir).parts(
        options.train_rows, options.eval_rows, None
    )
    backbone = Backbone.load(options.model_name_or_path)
    encoded = encode_task(data, backbone, LENGTH)
    flags = {
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": 64,
        "num_train_epochs": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "use_cpu": not torch.cuda.is_available(),  # else the Trainer refuses bf16
    }
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as name:
            out = Path(name)
            plain = run_plain(data, options.model_name_or_path, flags, out)
            fp32 = run_ours(encoded, backbone, flags | {"bf16": False}, out / "fp32")
            fast = run_ours(encoded, backbone, flags | {"bf16": bf16_is_fast()}, out / "fast")
        for way, found in zip(WAYS, (plain, fp32, fast), strict=True):
            seconds[way].append(found)
    options.output.write_text(_table(options, data, encoded, seconds))
    if options.json:
        options.json.write_text(json.dumps(seconds, indent=2) + "\n")


def _table(
    options: argparse.Namespace,
    data: TaskData,
    encoded: EncodedTask,
    seconds: dict[str, list[tuple[float, float]]],
) -> str:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = "bf16" if bf16_is_fast() else "fp32"
    ratio = "times as fast"
    lines = [
        f"# Finetuning speed: {options.task_name}\n",
        f"{describe(device)}; bf16 or fp32: {chosen}.",
        f"{len(encoded.train)} training rows in batches of {BATCH}, {len(encoded.dev[''])} for "
        f"evaluation, mean length {encoded.train.lengths.mean():.0f} tokens; medians (and all) of "
        f"{options.repeats} alternating repeats; `python -m benchmarks.glue`.\n",
        f"| way | training, s | evaluation, s | training, {ratio} | evaluation, {ratio} |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    base = [statistics.median(part) for part in zip(*seconds[WAYS[0]], strict=True)]
    for way, found in seconds.items():
        parts = list(zip(*found, strict=True))
        medians = [statistics.median(part) for part in parts]
        texts = [
            f"{median:.1f} ({', '.join(f'{s:.1f}' for s in part)})"
            for median, part in zip(medians, parts, strict=True)
        ]
        ratios = [f"{first / median:.1f}" for first, median in zip(base, medians, strict=True)]
        lines.append(f"| {way} | {' | '.join(texts)} | {' | '.join(ratios)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
