"""One job: a task, a method, a seed, on the Hugging Face Trainer.

A job is a folder `OUT/TASK/METHOD/seed-N` (`lr-RATE/seed-N` in a sweep over rates). It holds what
`run_glue.py` writes (`train_results.json`, `eval_results.json`, `predict_results_TASK.txt`), what
the method learned, `job.json` with the settings, and, last of all, `all_results.json` (folder.py).
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Subset
from transformers import (
    EvalPrediction,
    PrinterCallback,
    TrainingArguments,
    set_seed,
)

from finetune.files import read_json, write_json, write_text
from finetune.jobs.checkpoints import newest_whole
from finetune.jobs.folder import FINISHED, SETTINGS, needs_run, only_writer
from finetune.jobs.heads import load_with_head
from finetune.jobs.methods import METHODS, Head, head_names, head_weights
from finetune.jobs.progress import LogLines
from finetune.jobs.trainer import JobTrainer
from finetune.tasks.encode import IGNORED, Backbone, EncodedTask
from finetune.tasks.kinds import KINDS, constant_scores, decide, health, score_answers
from finetune.tasks.rows import Rows, by_length


@dataclass(frozen=True, kw_only=True)
class Job:
    """One cell of a sweep. `settings` is everything that decides its result, for `job.json`.

    `start` is the folder of a finished job whose model is taken instead of the pretrained one.
    """

    task: str
    method: str
    seed: int
    folder: Path
    training: dict[str, Any]
    settings: dict[str, Any]
    method_flags: dict[str, dict[str, Any]] = field(default_factory=dict)
    max_seq_length: int = 128
    pad_to_max_length: bool = False
    classifier_learning_rate: float | None = None
    start: Path | None = None


def build_model(
    job: Job, backbone: Backbone, encoded: EncodedTask
) -> tuple[nn.Module, frozenset[nn.Parameter]]:
    """The encoder with its head for the task, made ready to train by the job's method; and those of
    its parameters that are weights of the head.
    """
    task, labels = encoded.data.task, encoded.data.labels
    set_seed(job.seed)
    stock, random = load_with_head(backbone, task, labels, job.start)
    method = METHODS[job.method]
    head = Head(
        task=job.task,
        labels=labels,
        names=random or head_names(stock),
        seed=job.seed,
        is_kept=not random,
        text_columns=task.inputs,
        max_length=job.max_seq_length,
    )
    model = method.wrap(stock, head, job.method_flags.get(method.flags or "", {}))
    return model, head_weights(model, head)


def run_job(job: Job, backbone: Backbone, encoded: EncodedTask) -> dict[str, Any]:
    """Train, evaluate and predict as the job's flags say; returns what `all_results.json` holds.

    FinetuneError if another process is running the job, or has left one of other settings there.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with only_writer(job.folder):
        # Another process may have finished it since this one has planned.
        if not needs_run(job.folder, job.settings):
            return read_json(job.folder / FINISHED)
        return _run(job, backbone, encoded)


def _run(job: Job, backbone: Backbone, encoded: EncodedTask) -> dict[str, Any]:
    checkpoint = newest_whole(job.folder)
    arguments = TrainingArguments(output_dir=str(job.folder), seed=job.seed, **job.training)
    model, head = build_model(job, backbone, encoded)
    task = encoded.data.task
    padding: dict[str, Any] = {}
    if job.pad_to_max_length:
        padding = {
            "padding": "max_length",
            "max_length": min(job.max_seq_length, backbone.positions),
        }
    trainer = JobTrainer(
        model=model,
        args=arguments,
        train_dataset=encoded.train,
        eval_dataset=_sorted(encoded.dev[""]) if encoded.dev else None,
        data_collator=KINDS[task.kind].collator(backbone.tokenizer, **padding),
        processing_class=backbone.tokenizer,
        compute_metrics=partial(_compute_metrics, encoded),
        head=head,
        classifier_learning_rate=job.classifier_learning_rate,
    )
    writer = Writer(job, trainer.is_world_process_zero())
    writer.json(SETTINGS, job.settings)
    if arguments.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(LogLines(f"{job.task}, {job.method}, seed {job.seed}"))
    results: dict[str, Any] = {}
    status = "ok"
    if arguments.do_train:
        resumed = None if checkpoint is None else str(checkpoint)
        metrics = trainer.train(resume_from_checkpoint=resumed).metrics
        metrics["train_samples"] = len(encoded.train)
        results |= writer.json("train_results.json", metrics)
    if arguments.do_eval:
        metrics = {}
        for part, rows in encoded.dev.items():
            suffix = part.replace("-", "_")
            found, logits = _evaluate(trainer, rows, suffix)
            targets = _targets(rows)
            constant = constant_scores(task, encoded.data.labels, targets)
            metrics |= found
            metrics |= {f"constant_{name}{suffix}": value for name, value in constant.items()}
            status = max(status, health(task, targets, logits), key=SEVERITY.index)
        results |= writer.json("eval_results.json", metrics)
    if arguments.do_predict:
        for suffix, rows in encoded.test.items():
            answers = decide(predict(trainer, rows)[0], task)
            writer.predictions(encoded, rows, answers, suffix)
    if arguments.do_train:
        _save(job, trainer, model, backbone)
    results["status"] = status
    return writer.json(FINISHED, results)


SEVERITY = ("ok", "collapsed", "diverged")


def _sorted(rows: Rows) -> Subset:
    return Subset(rows, by_length(rows).tolist())  # type: ignore[arg-type]


def _targets(rows: Rows) -> np.ndarray:
    """[N], or for tokens [N, T] padded with IGNORED."""
    if rows.targets is not None:
        return rows.targets
    targets = np.full((len(rows), rows.lengths.max()), IGNORED)
    for index, row in enumerate(rows):
        targets[index, : len(row["labels"])] = row["labels"]
    return targets


def _compute_metrics(encoded: EncodedTask, found: EvalPrediction) -> dict[str, float]:
    task, labels = encoded.data.task, encoded.data.labels
    answers = decide(np.asarray(found.predictions), task)
    return score_answers(task, labels, np.asarray(found.label_ids), answers)


def predict(trainer: JobTrainer, rows: Rows) -> tuple[np.ndarray, dict[str, float]]:
    """Logits [N, C], for tokens [N, T, C], in the order of `rows`, and the Trainer's own figures;
    batched by length.
    """
    output = trainer.predict(_sorted(rows), metric_key_prefix="eval")
    logits = np.empty_like(output.predictions)
    logits[by_length(rows)] = output.predictions
    return logits, output.metrics or {}


def _evaluate(trainer: JobTrainer, rows: Rows, suffix: str) -> tuple[dict[str, Any], np.ndarray]:
    logits, metrics = predict(trainer, rows)
    metrics |= {"epoch": trainer.state.epoch or 0.0, "eval_samples": len(rows)}
    return {f"{name}{suffix}": value for name, value in metrics.items()}, logits


def _save(job: Job, trainer: JobTrainer, model: nn.Module, backbone: Backbone) -> None:
    if trainer.is_deepspeed_enabled and job.method == "finetune":
        trainer.save_model(str(job.folder))  # gathers what ZeRO has spread over the ranks
    elif trainer.is_world_process_zero():
        METHODS[job.method].save(model, job.folder)
    if job.method == "finetune" and trainer.is_world_process_zero():
        backbone.tokenizer.save_pretrained(job.folder)


@dataclass(frozen=True)
class Writer:
    """Writes a job's files; on all ranks but the first it only passes values on."""

    job: Job
    writes: bool

    def json(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        """Write `content`, a figure that is no number as null."""
        content = {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in content.items()
        }
        if self.writes:
            write_json(self.job.folder / name, content)
        return content

    def predictions(
        self, encoded: EncodedTask, rows: Rows, answers: np.ndarray, suffix: str
    ) -> None:
        """`predict_results_TASK.txt` as `run_glue.py` writes it: index and label, tab-separated;
        for tokens as `run_ner.py`: a line of tags per sentence.
        """
        labels = encoded.data.labels
        header = ["index\tprediction"]
        if encoded.data.task.kind == "tokens":
            header = []
            lines = [
                " ".join(labels[tag] for tag in row[: len(target)][target != IGNORED])
                for row, target in zip(answers, _label_rows(rows), strict=True)
            ]
        elif encoded.data.task.is_regression:
            lines = [f"{index}\t{value:3.3f}" for index, value in enumerate(answers)]
        else:
            lines = [f"{index}\t{labels[value]}" for index, value in enumerate(answers)]
        if self.writes:
            path = self.job.folder / f"predict_results_{self.job.task}{suffix}.txt"
            write_text(path, "\n".join([*header, *lines]) + "\n")


def _label_rows(rows: Rows) -> list[np.ndarray]:
    return [np.asarray(row["labels"]) for row in rows]
