"""One job: a task, a method, a seed, on the Hugging Face Trainer.

A job is a folder `OUT/TASK/METHOD/seed-N`. It holds what `run_glue.py` writes
(`train_results.json`, `eval_results.json`, `predict_results_TASK.txt`), the model or the mask,
`job.json` with the settings, and, written last of all, `all_results.json`: a folder without it is
an unfinished job.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from finetune.encode import Backbone, EncodedTask, Rows, by_length
from finetune.files import write_json, write_text
from finetune.masks import MaskConfig
from finetune.metrics import score
from finetune.progress import LogLines

logger = logging.getLogger(__name__)

FINISHED = "all_results.json"


@dataclass(frozen=True)
class Job:
    """One cell of a sweep. `settings` is everything that decides its result, for `job.json`."""

    task: str
    method: str
    seed: int
    folder: Path
    training: dict[str, Any]
    mask: dict[str, Any]
    settings: dict[str, Any]


class LengthBatchedTrainer(Trainer):
    """The Trainer, with evaluation rows in the order they are given: they come sorted by length."""

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
        # With train_sampling_strategy="group_by_length" the stock one also regroups these rows,
        # and gives predictions back in that order.
        return SequentialSampler(eval_dataset)


def build_model(job: Job, backbone: Backbone, encoded: EncodedTask) -> PreTrainedModel:
    """The pretrained encoder with a fresh head for the task; the head is drawn from the seed."""
    task, labels = encoded.data.task, encoded.data.labels
    heads = (
        {"num_labels": 1, "problem_type": "regression"}
        if task.is_regression
        else {"id2label": dict(enumerate(labels)), "label2id": {v: k for k, v in enumerate(labels)}}
    )
    set_seed(job.seed)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        backbone.name, **heads, output_loading_info=True
    )
    return METHODS[job.method](model, job, labels, sorted(loading["missing_keys"]))


def _finetune(
    model: PreTrainedModel, job: Job, labels: tuple[str, ...], random: list[str]
) -> PreTrainedModel:
    return model


def _mask(
    model: PreTrainedModel, job: Job, labels: tuple[str, ...], random: list[str]
) -> PreTrainedModel:
    config = MaskConfig(
        **job.mask,
        seed=job.seed,
        head_modules=sorted({name.rpartition(".")[0] for name in random}),
        task=job.task,
        labels=list(labels),
    )
    return get_peft_model(model, config)  # type: ignore[return-value]


METHODS: dict[str, Callable[..., PreTrainedModel]] = {"finetune": _finetune, "mask": _mask}


def run_job(job: Job, backbone: Backbone, encoded: EncodedTask) -> dict[str, Any]:
    """Train, evaluate and predict as the job's flags say; returns what `all_results.json` holds."""
    job.folder.mkdir(parents=True, exist_ok=True)
    record = job.folder / "job.json"
    # Checkpoints of an unfinished job are gone on from only if they are this very job's.
    resumes = record.is_file() and json.loads(record.read_text(encoding="utf-8")) == job.settings
    write_json(record, job.settings)
    arguments = TrainingArguments(output_dir=str(job.folder), seed=job.seed, **job.training)
    model = build_model(job, backbone, encoded)
    trainer = LengthBatchedTrainer(
        model=model,
        args=arguments,
        train_dataset=encoded.train,
        data_collator=DataCollatorWithPadding(backbone.tokenizer),
        processing_class=backbone.tokenizer,
    )
    if arguments.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(LogLines(f"{job.task}, {job.method}, seed {job.seed}"))
    results: dict[str, Any] = {}
    if arguments.do_train:
        resumed = get_last_checkpoint(str(job.folder)) if resumes else None
        metrics = trainer.train(resume_from_checkpoint=resumed).metrics
        metrics["train_samples"] = len(encoded.train)
        results |= _finish(job, "train", metrics)
    if arguments.do_eval:
        metrics = {}
        for suffix, rows in encoded.dev.items():
            metrics |= _evaluate(trainer, encoded, rows, suffix.replace("-", "_"))
        results |= _finish(job, "eval", metrics)
    if arguments.do_predict:
        for suffix, rows in encoded.test.items():
            _write_predictions(job, trainer, encoded, rows, suffix)
    if arguments.do_train:
        model.save_pretrained(job.folder)
        if job.method == "finetune":
            backbone.tokenizer.save_pretrained(job.folder)
    write_json(job.folder / FINISHED, results)
    return results


def _finish(job: Job, part: str, metrics: dict[str, Any]) -> dict[str, Any]:
    write_json(job.folder / f"{part}_results.json", metrics)
    return metrics


def predict(trainer: Trainer, rows: Rows) -> tuple[np.ndarray, dict[str, float]]:
    """Logits [N, C] in the order of `rows`, and the Trainer's own figures; batched by length."""
    order = by_length(rows)
    output = trainer.predict([rows[index] for index in order], metric_key_prefix="eval")  # type: ignore[arg-type]
    logits = np.empty_like(output.predictions)
    logits[order] = output.predictions
    return logits, output.metrics or {}


def decide(logits: np.ndarray, encoded: EncodedTask) -> np.ndarray:
    """Class ids, or scores for regression, [N]."""
    if encoded.data.task.is_regression:
        return logits[:, 0]
    return logits.argmax(axis=1)


def _evaluate(trainer: Trainer, encoded: EncodedTask, rows: Rows, suffix: str) -> dict[str, float]:
    logits, metrics = predict(trainer, rows)
    targets = np.array([row["labels"] for row in rows])
    scores = score(encoded.data.task.metrics, targets, decide(logits, encoded))
    metrics |= {f"eval_{name}": value for name, value in scores.items()}
    metrics |= {"epoch": trainer.state.epoch or 0.0, "eval_samples": len(rows)}
    return {f"{name}{suffix}": value for name, value in metrics.items()}


def _write_predictions(
    job: Job, trainer: Trainer, encoded: EncodedTask, rows: Rows, suffix: str
) -> None:
    """`predict_results_TASK.txt` as `run_glue.py` writes it: index and label, tab-separated."""
    values = decide(predict(trainer, rows)[0], encoded)
    if encoded.data.task.is_regression:
        texts = [f"{value:3.3f}" for value in values]
    else:
        texts = [encoded.data.labels[value] for value in values]
    lines = ["index\tprediction", *(f"{index}\t{text}" for index, text in enumerate(texts))]
    write_text(job.folder / f"predict_results_{job.task}{suffix}.txt", "\n".join(lines) + "\n")


def precision() -> dict[str, bool]:
    """The Trainer's precision flags for what this machine is fast at: bf16 on a GPU or with AMX.

    A CPU without AMX multiplies bf16 tens of times slower than fp32.
    """
    if torch.cuda.is_available():
        return {"bf16": torch.cuda.is_bf16_supported(including_emulation=False)}
    return {"bf16": torch.cpu._is_amx_tile_supported()}
