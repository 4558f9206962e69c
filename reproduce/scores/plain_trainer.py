"""Scores of stock transformers with `finetune.glue`'s flags: does ours score the same?

    python -m reproduce plain_trainer --config configs/reproduce/minilm_finetune.yaml \\
        --model_name_or_path MINILM --data_dir DATA --task_name trec cola --output_dir runs/plain
    python -m finetune.glue compare runs/plain runs/minilm

Only the rows of text, the flags and the metric are ours; tokenizing, padding, order and precision
are the Trainer's defaults: fp32 unless --bf16 is given, a random order, batches padded to their
longest row or, with --pad_to_max_length, all to --max_seq_length. Results go to the folders that
finetune.glue writes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from transformers import TrainingArguments

from benchmarks.plain_trainer import make_trainer
from finetune.files import write_text
from finetune.jobs.arguments import Layers, config_of, make_parser, parse, resolve
from finetune.tasks import load_task

logger = logging.getLogger(__name__)


def main(command: Sequence[str]) -> None:
    """Every task and seed of the command; finished ones are skipped."""
    parser = make_parser()
    parser.prog = "python -m reproduce plain_trainer"
    parser.description = __doc__
    layers = Layers.read(config_of(command), parser)
    first = parse(parser, [*layers.base, *command])
    for name in first.task_name:
        settings = resolve(parser, layers, command, "finetune", name)
        glue = settings.glue
        data = load_task(name, glue.data_dir).parts(glue.max_train_samples, None, None)
        for seed in settings.seeds:
            folder = settings.output_dir / name / "finetune" / f"seed-{seed}"
            results = folder / "all_results.json"
            if results.is_file():
                continue
            flags = settings.training | {
                "learning_rate": settings.learning_rates[0],
                "train_sampling_strategy": "random",
                "bf16": "--bf16" in command and settings.training["bf16"],
            }
            arguments = TrainingArguments(output_dir=str(folder), seed=seed, **flags)
            fixed = glue.max_seq_length if glue.pad_to_max_length else None
            trainer = make_trainer(data, glue.model_name_or_path, fixed, arguments)
            metrics = trainer.train().metrics | trainer.evaluate()
            metrics["train_samples"] = len(data.train.texts)
            folder.mkdir(parents=True, exist_ok=True)
            write_text(results, json.dumps(metrics, indent=4))
            logger.info("%s, seed %d: %s", name, seed, metrics)
