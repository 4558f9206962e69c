"""From the command line and a YAML file to jobs.

The flags are `run_glue.py`'s: its own, and every field of Hugging Face's `TrainingArguments`. A
`--config` file holds the same flags by name, and sections that hold flags for some jobs only:
`methods: {mask: {...}}`, `tasks: {rte: {...}}` and `methods: {mask: {tasks: {rte: {...}}}}`. Later
wins: the method's defaults, the file, its `methods`, its `tasks`, its `methods`' `tasks`, the
command line. A section `figures` holds flags for `python -m reproduce weight_masks` alone.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import HfArgumentParser, TrainingArguments

from finetune.console import CommandParser
from finetune.distribution import find_config
from finetune.errors import FinetuneError
from finetune.files import read_yaml
from finetune.jobs.flags import (
    EVERY_METHOD,
    METHOD_DEFAULTS,
    OF_ALL_JOBS,
    OF_METHODS,
    GlueArguments,
)
from finetune.jobs.methods import METHODS
from finetune.jobs.precision import bf16_is_fast
from finetune.jobs.settings import Settings
from finetune.tasks import GLUE, DataFlags


class Parser(HfArgumentParser):
    """argparse whose errors are ours: one line with the nearest flag, no page of usage."""

    def error(self, message: str) -> NoReturn:
        """What argparse calls for any mistake."""
        raise FinetuneError(message[0].upper() + message[1:] + ". All flags: --help.")


def make_parser(*more: type) -> Parser:
    """Every flag the command takes, and the fields of the dataclasses `more`."""
    parser = Parser(
        (*more, GlueArguments, DataFlags, *OF_METHODS.values(), TrainingArguments),  # type: ignore[arg-type]
        prog="python -m finetune.glue",
        description=__doc__,
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    parser.add_argument("--help_all", action="help", help="list every flag")
    parser.add_argument("--config", type=Path, help="YAML file of flags")
    parser.add_argument("--seed", type=int, nargs="+", default=[42], help="one job per seed")
    parser.add_argument(
        *("--learning_rate", "--learning-rate"),
        type=float,
        nargs="+",
        default=[5e-5],
        help="one job per rate; results of several go to TASK/METHOD/lr-RATE/seed-N",
    )
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


def config_of(command: Sequence[str]) -> Path | None:
    """FILE of `--config FILE` or `--config=FILE`, which may bring flags that are else required."""
    parser = CommandParser(add_help=False)
    parser.add_argument("--config", type=Path)
    return parser.parse_known_args(command)[0].config


@dataclass(frozen=True)
class Layers:
    """A config file taken apart: flags for all jobs, for those of one method, task, or both.

    `figures` is as it stands in the file: its flags are not all ours (reproduce/weight_masks).
    """

    base: list[str]
    methods: dict[str, list[str]]
    tasks: dict[str, list[str]]
    both: dict[tuple[str, str], list[str]]
    figures: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path | None, parser: Parser) -> "Layers":
        """From YAML; an unknown key is an error that names it and the file."""
        if path is None:
            return cls([], {}, {}, {}, {})
        path = find_config(path)
        content = read_yaml(path)
        methods = _section(content, "methods", str(path))
        wrong = sorted(set(methods) - set(METHODS))
        if wrong:
            raise FinetuneError(f"{path}, methods: found {wrong}, expected {', '.join(METHODS)}.")
        both = {
            (method, task): words_of(flags, f"{path}, methods.{method}.tasks.{task}", parser)
            for method, inner in methods.items()
            for task, flags in _section(inner, "tasks", f"{path}, methods.{method}").items()
        }
        tasks = _section(content, "tasks", str(path))
        for where, section in (("methods", methods), ("tasks", tasks)):
            for name, flags in section.items():
                _refuse_common(flags, f"{path}, {where}.{name}")
        figures = _section(content, "figures", str(path))
        return cls(
            words_of(content, str(path), parser),
            {name: words_of(f, f"{path}, methods.{name}", parser) for name, f in methods.items()},
            {name: words_of(f, f"{path}, tasks.{name}", parser) for name, f in tasks.items()},
            both,
            figures,
        )

    def words(self, method: str, task: str) -> Iterator[str]:
        """The file's flags for one method and task, in the order in which later ones win."""
        yield from self.base
        yield from self.methods.get(method, [])
        yield from self.tasks.get(task, [])
        yield from self.both.get((method, task), [])


def _refuse_common(flags: dict[str, Any], source: str) -> None:
    """FinetuneError for a flag that holds for all jobs or none."""
    for name in OF_ALL_JOBS:
        if name in flags:
            raise FinetuneError(
                f"{source}: found {name}, which is one for all jobs: name it outside the sections, "
                "or run another command."
            )


def _section(content: Any, name: str, source: str) -> dict[str, dict[str, Any]]:
    """Take section `name`, a map of maps, out of `content`."""
    if not isinstance(content, dict):
        raise FinetuneError(f"{source}: expected a map of flags, found {content!r}.")
    section = content.pop(name, None) or {}
    if not isinstance(section, dict):
        raise FinetuneError(f"{source}, {name}: expected a map, found {section!r}.")
    return {key: flags or {} for key, flags in section.items()}


def words_of(flags: dict[str, Any], source: str, parser: Parser) -> list[str]:
    """{flag: value} as command line words."""
    if not isinstance(flags, dict):
        raise FinetuneError(f"{source}: expected a map of flags, found {flags!r}.")
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


def task_names(first: argparse.Namespace) -> list[str]:
    """The tasks that were asked for, `all` spelled out; `custom` for files without a name."""
    if not first.task_name and first.train_file:
        return ["custom"]
    if not first.task_name:
        raise FinetuneError("--task_name is missing: a task, several, or `all` for GLUE's nine.")
    names = [name for word in first.task_name for name in (GLUE if word == "all" else [word])]
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise FinetuneError(
                f"--task_name {name!r}: a folder is called so; expected letters, digits, _, - and ."
            )
    return list(dict.fromkeys(names))


def _targets(words: list[str]) -> list[str] | str:
    """PEFT's two forms: names or their ends; "all-linear" or a regular expression."""
    is_expression = words == ["all-linear"] or not re.fullmatch(r"[\w.]+", words[0])
    return words[0] if len(words) == 1 and is_expression else words


def resolve(
    parser: Parser, layers: Layers, command: Sequence[str], method: str, task: str
) -> Settings:
    """Apply the layers for one method and task."""
    defaults = words_of(EVERY_METHOD | METHOD_DEFAULTS[method], "defaults", parser)
    chosen = [*layers.words(method, task), *command]
    values = vars(parse(parser, defaults + chosen))
    values.pop("config")
    if values["output_dir"] is None:
        raise FinetuneError("--output_dir is missing: the folder that results go to.")
    output_dir = Path(values.pop("output_dir"))
    seeds, rates = values.pop("seed"), values.pop("learning_rate")
    glue = GlueArguments(**{name: values.pop(name) for name in GlueArguments.__dataclass_fields__})
    data = DataFlags(**{name: values.pop(name) for name in DataFlags.__dataclass_fields__})
    method_flags: dict[str, dict[str, Any]] = {
        name: {
            flag.removeprefix(f"{name}_"): values.pop(flag)
            for flag in (field.name for field in fields(arguments))
        }
        for name, arguments in OF_METHODS.items()
    }
    method_flags["ia3"] = {}  # it has no flags but target_modules
    if glue.target_modules:
        for flags in method_flags.values():
            flags["target_modules"] = _targets(glue.target_modules)
    frozen_head = method == "mask" and not method_flags["mask"]["train_classifier"]
    if glue.classifier_learning_rate is not None and frozen_head:
        raise FinetuneError(
            f"--classifier_learning_rate {glue.classifier_learning_rate:g} for {task}: "
            "--method mask leaves the head frozen; add --train_classifier true, or leave the rate "
            "out."
        )
    if not any(values[name] for name in ("do_train", "do_eval", "do_predict")):
        values |= {"do_train": True, "do_eval": True}
    if "--bf16" not in chosen and "--fp16" not in chosen:
        values["bf16"] = bf16_is_fast()
    if values["bf16"] and not torch.cuda.is_available():
        values["use_cpu"] = True  # the Trainer takes bf16 without a GPU only so
    settings = Settings(glue, data, seeds, rates, output_dir, values, method_flags)
    settings.check()
    return settings
