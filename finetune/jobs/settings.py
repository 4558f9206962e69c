"""The flags of one task and method: which of them decide results, and what no job can use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError
from finetune.jobs.flags import DECIDING_IF_GIVEN, PRESENTATION, GlueArguments
from finetune.jobs.methods import METHODS
from finetune.tasks import DataFlags


@dataclass(frozen=True)
class Settings:
    """The flags of one task and method, after all layers; a job per seed and learning rate."""

    glue: GlueArguments
    data: DataFlags
    seeds: list[int]
    learning_rates: list[float]
    output_dir: Path
    training: dict[str, Any]
    method_flags: dict[str, dict[str, Any]]

    def deciding(self, method: str, learning_rate: float) -> dict[str, Any]:
        """The flags that decide a job's results: not how it is shown, logged, stored or fed."""
        decided = {
            name: value
            for name, value in self.training.items()
            if not name.startswith(PRESENTATION)
        }
        decided["learning_rate"] = learning_rate
        decided["max_seq_length"] = self.glue.max_seq_length
        for name in DECIDING_IF_GIVEN:
            value = getattr(self.glue, name)
            if value is not None and value is not False:  # a rate of 0 is given, too
                decided[name] = value
        flags = METHODS[method].flags
        return decided | ({flags: self.method_flags[flags]} if flags else {})

    def check(self) -> None:
        """FinetuneError for a number that no job can use."""
        at_least = {
            "max_train_samples": (self.glue.max_train_samples, 1),
            "max_eval_samples": (self.glue.max_eval_samples, 1),
            "max_predict_samples": (self.glue.max_predict_samples, 1),
            "max_seq_length": (self.glue.max_seq_length, 3),
            "num_processes": (self.glue.num_processes, 1),
            "per_device_train_batch_size": (self.training["per_device_train_batch_size"], 1),
            "per_device_eval_batch_size": (self.training["per_device_eval_batch_size"], 1),
            "gradient_accumulation_steps": (self.training["gradient_accumulation_steps"], 1),
            "seed": (min(self.seeds), 0),
            "learning_rate": (min(self.learning_rates), 0),
            "classifier_learning_rate": (self.glue.classifier_learning_rate, 0),
            "num_train_epochs": (self.training["num_train_epochs"], 0),
            "lora_r": (self.method_flags["lora"]["r"], 1),
            "lora_dropout": (self.method_flags["lora"]["dropout"], 0),
            "shira_r": (self.method_flags["shira"]["r"], 1),
            "recompute_blocks": (self.method_flags["mask"]["recompute_blocks"], 0),
        }
        for name, (value, least) in at_least.items():
            if value is not None and not least <= value < float("inf"):
                raise FinetuneError(f"--{name}: found {value}, expected {least} or more.")
        if self.method_flags["lora"]["dropout"] >= 1:
            raise FinetuneError(
                f"--lora_dropout: found {self.method_flags['lora']['dropout']}, expected below 1."
            )
        if self.training["resume_from_checkpoint"]:
            raise FinetuneError(
                "--resume_from_checkpoint: each job resumes from the newest whole checkpoint in "
                "its own folder; give the same --output_dir and leave this flag out."
            )
        if self.output_dir.exists() and not self.output_dir.is_dir():
            raise FinetuneError(f"--output_dir {self.output_dir}: a file; expected a folder.")

    def check_best_model(self, metrics: Sequence[str]) -> None:
        """FinetuneError if the best checkpoint can't be chosen as the flags say."""
        if not self.training["load_best_model_at_end"]:
            return
        evaluates, saves = (
            str(getattr(self.training[name], "value", self.training[name]))
            for name in ("eval_strategy", "save_strategy")
        )
        if saves != "best" and evaluates != saves:
            raise FinetuneError(
                f"--load_best_model_at_end: found --eval_strategy {evaluates} and --save_strategy "
                f"{saves}, expected the same."
            )
        chosen = self.training["metric_for_best_model"]
        known = ("loss", *metrics)
        if chosen is not None and chosen.removeprefix("eval_") not in known:
            raise FinetuneError(
                f"--metric_for_best_model: found {chosen}, expected one of {', '.join(known)}."
            )
