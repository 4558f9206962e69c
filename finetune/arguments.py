"""From the command line and a YAML file to jobs.

The flags are `run_glue.py`'s: its own, and every field of Hugging Face's `TrainingArguments`. A
`--config` file holds the same flags by name, and two sections that hold flags for some jobs only:
`methods: {mask: {...}}` and `tasks: {rte: {...}}`. Later wins: the method's defaults, the file, its
`methods`, its `tasks`, the command line.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser, TrainingArguments

from finetune.errors import FinetuneError
from finetune.train import METHODS, precision

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
# The masking paper's recipe (methods §2.1): Adam, no decay, no clipping, a constant rate.
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "finetune": {},
    "mask": {
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 32,
        "num_train_epochs": 10,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
    },
}


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
    task_name: list[str] = field(metadata={"help": "tasks, or `all` for the nine of GLUE"})
    method: list[str] = field(
        default_factory=lambda: ["finetune"], metadata={"help": " or ".join(METHODS)}
    )
    data_dir: Path | None = field(
        default=None, metadata={"help": "folder in GLUE's layout; without it, the Hub"}
    )
    max_seq_length: int = field(default=128, metadata={"help": "in tokens"})


@dataclass
class MaskArguments:
    """Flags of the method `mask` (fields of MaskConfig)."""

    initial_sparsity: float = field(default=0.05, metadata={"help": "share of zeros at the start"})
    mask_blocks: list[int] | None = field(
        default=None, metadata={"help": "blocks to mask, from 0; default all but the lowest two"}
    )
    train_classifier: bool = field(
        default=False, metadata={"help": "train the head instead of masking its random weights"}
    )


class Parser(HfArgumentParser):
    """argparse whose errors are ours: one line with the nearest flag, no page of usage."""

    def error(self, message: str) -> NoReturn:
        """What argparse calls for any mistake."""
        raise FinetuneError(message[0].upper() + message[1:] + ". All flags: --help.")


def make_parser() -> Parser:
    """Every flag the command takes, as argparse actions."""
    parser = Parser(
        (GlueArguments, MaskArguments, TrainingArguments),  # type: ignore[arg-type]
        prog="python -m finetune.glue",
        description=__doc__,
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    parser.add_argument("--config", type=Path, help="YAML file of flags")
    parser.add_argument("--seed", type=int, nargs="+", default=[42], help="one job per seed")
    return parser


def flag_names(parser: argparse.ArgumentParser) -> set[str]:
    """Names of all flags, without dashes."""
    return {
        option.removeprefix("--") for action in parser._actions for option in action.option_strings
    }


def parse(parser: Parser, words: Sequence[str], source: str = "command line") -> argparse.Namespace:
    """Parse, refusing unknown flags with the nearest known one."""
    namespace, unknown = argparse.ArgumentParser.parse_known_args(parser, list(words))
    if unknown:
        raise FinetuneError(f"{source}: {unknown_flag(unknown[0].partition('=')[0], parser)}")
    return namespace


def unknown_flag(name: str, parser: Parser) -> str:
    """Says that `name` is no flag, and which one is nearest."""
    near = get_close_matches(name.removeprefix("--"), flag_names(parser), n=1)
    hint = f" Did you mean {near[0]}?" if near else " All flags: --help."
    return f"unknown flag {name}.{hint}"


@dataclass(frozen=True)
class Layers:
    """A config file taken apart: flags for all jobs, and for those of one method or task."""

    base: list[str]
    methods: dict[str, list[str]]
    tasks: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path | None, parser: Parser) -> "Layers":
        """From YAML; an unknown key is an error that names it and the file."""
        if path is None:
            return cls([], {}, {})
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise FinetuneError(f"--config {path}: {error}") from error
        if not isinstance(content, dict):
            raise FinetuneError(f"{path}: expected a map of flags.")
        sections: dict[str, dict[str, list[str]]] = {}
        for section in ("methods", "tasks"):
            inner = content.pop(section, None) or {}
            sections[section] = {
                name: _words(flags or {}, f"{path}, {section}.{name}", parser)
                for name, flags in inner.items()
            }
        wrong = sorted(set(sections["methods"]) - set(METHODS))
        if wrong:
            raise FinetuneError(f"{path}, methods: found {wrong}, expected {', '.join(METHODS)}.")
        return cls(_words(content, str(path), parser), sections["methods"], sections["tasks"])


def _words(flags: dict[str, Any], source: str, parser: Parser) -> list[str]:
    """{flag: value} as command line words."""
    known = flag_names(parser)
    words: list[str] = []
    for name, value in flags.items():
        if name not in known:
            raise FinetuneError(f"{source}: {unknown_flag(name, parser)}")
        if value is None:
            continue
        words.append(f"--{name}")
        if isinstance(value, list):
            words += map(str, value)
        else:
            words.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return words


@dataclass(frozen=True)
class Settings:
    """The flags of one job, after all layers."""

    glue: GlueArguments
    seeds: list[int]
    output_dir: Path
    training: dict[str, Any]
    mask: dict[str, Any]

    def deciding(self, method: str) -> dict[str, Any]:
        """The flags that decide a job's results: not how it is shown, logged, stored or fed."""
        decided = {
            name: value
            for name, value in self.training.items()
            if not name.startswith(PRESENTATION)
        }
        decided["max_seq_length"] = self.glue.max_seq_length
        return decided | ({"mask": self.mask} if method == "mask" else {})


def resolve(
    parser: Parser, layers: Layers, command: Sequence[str], method: str, task: str
) -> Settings:
    """Apply the layers for one method and task."""
    defaults = _words(EVERY_METHOD | METHOD_DEFAULTS[method], "defaults", parser)
    chosen = [*layers.base, *layers.methods.get(method, []), *layers.tasks.get(task, []), *command]
    values = vars(parse(parser, defaults + chosen))
    values.pop("config")
    seeds = values.pop("seed")
    if values["output_dir"] is None:
        raise FinetuneError("--output_dir is missing: the folder that results go to.")
    output_dir = Path(values.pop("output_dir"))
    glue = GlueArguments(**{name: values.pop(name) for name in GlueArguments.__dataclass_fields__})
    mask = {
        "initial_sparsity": values.pop("initial_sparsity"),
        "blocks": values.pop("mask_blocks"),
        "train_classifier": values.pop("train_classifier"),
    }
    if not any(values[name] for name in ("do_train", "do_eval", "do_predict")):
        values |= {"do_train": True, "do_eval": True}
    if "--bf16" not in chosen and "--fp16" not in chosen:
        values |= precision()
    return Settings(glue, seeds, output_dir, values, mask)
