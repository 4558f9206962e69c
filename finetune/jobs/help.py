"""What `python -m finetune.glue --help` prints: the flags that are not those of transformers.

The rest, and how all are parsed, is in arguments.py, which imports transformers.
"""

import argparse
from dataclasses import MISSING, Field, fields
from typing import Any

from finetune.jobs.flags import OF_METHODS, GlueArguments
from finetune.tasks import DataFlags

FLAGS: tuple[type, ...] = (GlueArguments, DataFlags, *OF_METHODS.values())
ALL = (
    "Beside these, every field of transformers' TrainingArguments: --num_train_epochs, "
    "--per_device_train_batch_size, --bf16 and so on. --help_all lists them."
)


def print_help(about: str | None) -> None:
    """The flags of every dataclass in FLAGS, by its first line; `about` is the command."""
    parser = argparse.ArgumentParser(
        prog="python -m finetune.glue",
        usage="python -m finetune.glue --model_name_or_path M --task_name TASK… --output_dir OUT …",
        description=about,
        epilog=ALL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    for flags in FLAGS:
        group = parser.add_argument_group((flags.__doc__ or "").rstrip("."))
        for field in fields(flags):
            group.add_argument(f"--{field.name}", metavar="", help=_help(field))
    group = parser.add_argument_group("One job for each of several, and where they go")
    group.add_argument("--seed", metavar="", help="default 42")
    group.add_argument("--learning_rate", metavar="", help="default: the method's")
    group.add_argument("--output_dir", metavar="", help="folder of the results")
    group.add_argument("--config", metavar="", help="YAML file of flags")
    parser.print_help()


def _help(field: Field[Any]) -> str:
    text = field.metadata.get("help", "").replace("%", "%%")
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    if default in (MISSING, None) or "default" in text:
        return text
    words = default if isinstance(default, list) else [default]
    return f"{text} (default {' '.join(map(str, words)) or 'none'})"
