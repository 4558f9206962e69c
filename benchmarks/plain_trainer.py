"""Stock transformers on one task, as `run_glue.py` uses it: what finetune.glue is measured against.

Only the rows of text and the metric are ours; tokenizing, padding, order and precision are the
Trainer's.
"""

from __future__ import annotations

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

from finetune.tasks import Split, TaskData
from finetune.tasks.metrics import score


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
