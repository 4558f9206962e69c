"""Stock transformers on one task, as `run_glue.py` uses it: what finetune.glue is measured against.

    python -m benchmarks.plain_trainer --config configs/reproduce/minilm_finetune.yaml \\
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
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from finetune.console import set_up
from finetune.jobs.arguments import Layers, config_of, make_parser, parse, resolve
from finetune.tasks import Split, TaskData, load_task
from finetune.tasks.metrics import score

logger = logging.getLogger(__name__)


def make_trainer(
    data: TaskData, model_name: str, max_seq_length: int | None, arguments: TrainingArguments
) -> Trainer:
    """A Trainer over `data`; `max_seq_length` pads every row to it, None pads by batch to 128."""
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    padding: Any = "max_length" if max_seq_length else False

    def tokenize(split: Split) -> Dataset:
        columns = [list(column) for column in zip(*split.texts, strict=True)]
        encoded = tokenizer(
            *columns, padding=padding, max_length=max_seq_length or 128, truncation=True
        )
        return Dataset.from_dict({**encoded, "label": split.targets})

    def compute_metrics(found: EvalPrediction) -> dict[str, float]:
        answers = np.argmax(found.predictions, axis=1)
        return score(data.task.metrics, np.asarray(found.label_ids), answers)

    set_seed(arguments.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        model_name, num_labels=len(data.labels)
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=tokenize(data.train),
        eval_dataset=tokenize(data.dev[""]),
        data_collator=default_data_collator
        if max_seq_length
        else DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
    )


def main(command: Sequence[str]) -> None:
    """Every task and seed of the command; finished ones are skipped."""
    parser = make_parser()
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
            results.write_text(json.dumps(metrics, indent=4))
            logger.info("%s, seed %d: %s", name, seed, metrics)


if __name__ == "__main__":
    set_up()
    main(sys.argv[1:])
