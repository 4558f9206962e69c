"""The flags of `python -m finetune.glue` beside `TrainingArguments`, and each method's defaults.

Data and model flags have `run_glue.py`'s names.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.choices import BINARIZERS, GRANULARITIES, INITS, MATRICES

# run_glue.py's defaults hold for `finetune`, less what costs time and isn't asked for.
EVERY_METHOD = {
    "report_to": "none",
    "save_strategy": "no",
    "train_sampling_strategy": "group_by_length",
    "per_device_eval_batch_size": 64,
    "logging_steps": 50,
    "disable_tqdm": not sys.stderr.isatty(),
    "dataloader_pin_memory": False,
}
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "finetune": {},
    # The masking paper's recipe: Adam, no decay, no clipping, a constant rate.
    "mask": {
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 32,
        "num_train_epochs": 10,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
    },
    # Rates of the methods' own papers for RoBERTa-base, but IA3's for T0 and SHiRA's as LoRA's; the
    # rest as for finetuning.
    "lora": {"learning_rate": 5e-4},
    "shira": {"learning_rate": 5e-4},
    "ia3": {"learning_rate": 3e-3},
    "bitfit": {"learning_rate": 4e-4},
    "linear": {"learning_rate": 1e-3},
}
# Flags of ours that decide a job's result, and that `job.json` names only where they are given.
DECIDING_IF_GIVEN = (
    "classifier_learning_rate",
    "max_train_samples",
    "max_eval_samples",
    "pad_to_max_length",
)
# Flags that a config may not set for some methods or tasks alone.
OF_ALL_JOBS = ("model_name_or_path", "method", "task_name", "output_dir", "num_processes")
# Beginnings of the names of flags that change no result.
PRESENTATION = (
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "disable_tqdm",
    "hub_",
    "include_num_input_tokens_seen",
    "log_",
    "logging_",
    "per_device_eval_batch_size",
    "project",
    "push_to_hub",
    "report_to",
    "run_name",
    "save_",
    "trackio_",
)


@dataclass
class GlueArguments:
    """What `run_glue.py` calls data and model arguments, and the choice of jobs."""

    model_name_or_path: str = field(metadata={"help": "folder or Hub name of the encoder"})
    task_name: list[str] = field(
        default_factory=list, metadata={"help": "tasks, or `all` for the nine of GLUE"}
    )
    method: list[str] = field(
        default_factory=lambda: ["finetune"], metadata={"help": " or ".join(METHOD_DEFAULTS)}
    )
    data_dir: Path | None = field(
        default=None, metadata={"help": "folder in GLUE's layout; without it, the Hub"}
    )
    max_seq_length: int = field(default=128, metadata={"help": "in tokens"})
    pad_to_max_length: bool = field(
        default=False, metadata={"help": "pad to max_seq_length, not to the batch's longest row"}
    )
    classifier_learning_rate: float | None = field(
        default=None, metadata={"help": "the head's, where it trains; default the learning rate"}
    )
    target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "what mask, lora, shira or ia3 work on, as in PEFT: all-linear, ends of names, "
            "or a regular expression; default: see the method"
        },
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "a seeded part of the training rows, the same for all jobs"}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "the same of dev"})
    max_predict_samples: int | None = field(default=None, metadata={"help": "the same of test"})
    overwrite_cache: bool = field(
        default=False, metadata={"help": "tokenize again instead of reading OUT/.tokens"}
    )
    start_from: str | None = field(
        default=None,
        metadata={
            "help": "start from the model that OUT/TASK/finetune/seed-N holds for the same seed "
            "(a task's name, as mnli for RTE, STS-B, MRPC), or from a finished job's folder; its "
            "head comes along where it has the same classes"
        },
    )
    num_processes: int | None = field(
        default=None,
        metadata={"help": "jobs side by side; default one per visible GPU, one on CPU"},
    )


@dataclass
class MaskArguments:
    """Flags of the method `mask` (fields of MaskConfig)."""

    initial_sparsity: float = field(default=0.05, metadata={"help": "share of zeros at the start"})
    mask_blocks: list[str] | None = field(
        default=None,
        metadata={
            "help": "from 0, or top:N, or bottom:N; default all, of six or more but the lowest two"
        },
    )
    mask_matrices: list[str] = field(
        default_factory=lambda: list(MATRICES), metadata={"help": "within a block"}
    )
    mask_init: str = field(default="uniform", metadata={"help": " or ".join(INITS)})
    binarizer: str = field(default="threshold", metadata={"help": " or ".join(BINARIZERS)})
    granularity: str = field(
        default="weight", metadata={"help": "what a bit governs: " + " or ".join(GRANULARITIES)}
    )
    target_sparsity: float | None = field(
        default=None, metadata={"help": "share of zeros that each matrix is pushed towards"}
    )
    frozen_dtype: str | None = field(
        default=None, metadata={"help": "keep the encoder in bfloat16: half the memory"}
    )
    recompute_blocks: int = field(
        default=0, metadata={"help": "uppermost blocks computed again in the backward pass"}
    )
    train_classifier: bool = field(
        default=False, metadata={"help": "train the head, whose weights are else frozen"}
    )


@dataclass
class LoraArguments:
    """Flags of the method `lora` (fields of PEFT's LoraConfig)."""

    lora_r: int = field(default=8, metadata={"help": "rank"})
    lora_alpha: int = field(default=8, metadata={"help": "the update is scaled by alpha / r"})
    lora_dropout: float = field(default=0.0, metadata={"help": "on the input of the update"})


@dataclass
class ShiraArguments:
    """Flags of the method `shira` (fields of PEFT's ShiraConfig)."""

    shira_r: int = field(
        default=8, metadata={"help": "as many weights train as LoRA of this rank has"}
    )


OF_METHODS: dict[str, type] = {
    "mask": MaskArguments,
    "lora": LoraArguments,
    "shira": ShiraArguments,
}
