"""Config files and `--group.field value` to a checked `PretrainConfig`; errors of one screen."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import NoReturn, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from pretrain.config import PretrainConfig
from pretrain.errors import PretrainError


def parse_args(argv: Sequence[str]) -> PretrainConfig:
    """`--config FILE` (one or more, later ones win) and `--group.field value` to a checked config.

    Raises:
        PretrainError: an unknown key, a wrong type, a missing field or an impossible combination.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # --help explains each field
    parser = ArgumentParser(
        prog="pretrain/main.py",
        description="Pretrain RoBERTa with late [MASK] insertion.",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with the fields below")
    parser.add_class_arguments(PretrainConfig, None)
    _refuse_unknown_keys(argv)
    try:
        namespace: Namespace = parser.instantiate(parser.parse_args(list(argv)))
    except Exception as error:  # jsonargparse wraps what __post_init__ raises, too
        raise PretrainError(_one_screen(error)) from None
    return PretrainConfig(**{f.name: getattr(namespace, f.name) for f in fields(PretrainConfig)})


def load_config(path: Path) -> PretrainConfig:
    """Read a YAML written by `PretrainConfig.save` or by hand; errors name the file and the key."""
    if not path.is_file():
        raise PretrainError(f"{path}: no such config file")
    return parse_args(["--config", str(path)])


def _one_screen(error: BaseException) -> str:
    """Our own words where they are the cause, else jsonargparse's, which name the key."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PretrainError):
        cause = cause.__cause__ or cause.__context__
    return str(cause or error).strip()


def _known_keys(kind: type = PretrainConfig, prefix: str = "") -> list[str]:
    keys = []
    for name, hint in get_type_hints(kind).items():
        nested = isinstance(hint, type) and is_dataclass(hint)
        keys += _known_keys(hint, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys


def _refuse_unknown_keys(argv: Sequence[str]) -> None:
    """Name an unknown key, where it stands and the nearest known one, before types are checked."""
    known = _known_keys()
    for index, argument in enumerate(argv):
        if match := re.match(r"--([a-z_]+\.[a-z_.]+)", argument):
            _refuse(match[1], known, "the command line")
        if argument == "--config" or argument.startswith("--config="):
            path = Path(argument.partition("=")[2] or next(iter(argv[index + 1 : index + 2]), ""))
            if not path.is_file():
                raise PretrainError(f"--config {path}: no such file")
            for group, content in (yaml.safe_load(path.read_text()) or {}).items():
                keys = [f"{group}.{key}" for key in content] if isinstance(content, dict) else []
                for key in keys or [group]:
                    _refuse(key, known, str(path))


def _refuse(key: str, known: list[str], where: str) -> None:
    if key in known or any(name.startswith(f"{key}.") for name in known):
        return
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "--help lists the known ones"
    raise PretrainError(f"{where}: unknown key {key}; {hint}")


def say(error: PretrainError) -> int:
    """Print the error as a user should see it; returns its exit code (2 for most)."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def exit_with(error: PretrainError) -> NoReturn:
    """`say` it, and end with its exit code."""
    raise SystemExit(say(error))
