"""A config from YAML files and command-line options; an error names file and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from pretrain.config import PretrainConfig
from pretrain.distribution import find_config
from pretrain.earlier_releases import REMOVED, translate
from pretrain.errors import PretrainError


def parse_args(argv: Sequence[str]) -> PretrainConfig:
    """`--config FILE` (one or more, later ones win) and `--group.field value` to a checked config.

    Raises:
        PretrainError: an unknown key, a wrong type, a missing field or an impossible combination.
    """
    # Imported here: whoever only names a config need not load the parser.
    from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # --help explains each field
    parser = ArgumentParser(
        prog="pretrain/main.py",
        usage="%(prog)s --config FILE --data.path DATA --run.output_dir RUN [--GROUP.KEY VALUE …]",
        description="Pretrain an encoder with late [MASK] insertion. By default it is ordinary "
        "masked language modelling on RoBERTa's body; the files in configs/pretrain/ hold recipes.",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with the fields below")
    parser.add_class_arguments(PretrainConfig, None)
    argv = _refuse_unknown_keys(argv)
    try:
        namespace: Namespace = parser.instantiate(parser.parse_args(argv))
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


def _refuse_unknown_keys(argv: Sequence[str]) -> list[str]:
    """Name an unknown key, where it stands and the nearest known one, before types are checked.

    Returns:
        `argv`, its files found, the keys of earlier releases in them translated.
    """
    known = _known_keys()
    translated = list(argv)
    for index, argument in enumerate(argv):
        if match := re.match(r"--([a-z_]+\.[a-z_.]+)", argument):
            _refuse(match[1], known, "the command line")
        if argument == "--config" or argument.startswith("--config="):
            inline = argument.partition("=")[2]
            path = find_config(Path(inline or next(iter(argv[index + 1 : index + 2]), "")))
            content = _read_yaml(path)
            is_earlier = translate(content, str(path))
            text = yaml.safe_dump(content, sort_keys=False) if is_earlier else str(path)
            translated[index if inline else index + 1] = f"--config={text}" if inline else text
            for group, fields_of_group in content.items():
                nested = isinstance(fields_of_group, dict)
                keys = [f"{group}.{key}" for key in fields_of_group] if nested else []
                for key in keys or [group]:
                    _refuse(key, known, str(path))
    return translated


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PretrainError(f"--config {path}: no such file")
    try:
        text = path.read_text()
        content = yaml.safe_load(text)
        _refuse_repeated_keys(yaml.compose(text, yaml.SafeLoader), path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise PretrainError(f"--config {path}: not valid YAML: {text}") from None
    if not isinstance(content, dict):
        raise PretrainError(
            f"--config {path}: a mapping of groups (data, model, run …) is expected, it holds "
            f"{'nothing' if content is None else type(content).__name__}"
        )
    return content


def _refuse_repeated_keys(node: yaml.Node | None, path: Path, prefix: str = "") -> None:
    """Name a key that a mapping has twice: YAML takes the last, and says nothing."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _refuse_repeated_keys(item, path, f"{prefix}[{index}]")
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = f"{prefix}.{key.value}".lstrip(".")
        line = key.start_mark.line + 1
        if name in lines and key.tag != "tag:yaml.org,2002:merge":
            raise PretrainError(
                f"{path}: {name}: given in line {lines[name]} and again in line {line}; "
                "keep one of them"
            )
        lines[name] = line
        _refuse_repeated_keys(value, path, name)


def _refuse(key: str, known: list[str], where: str) -> None:
    if key in known or any(name.startswith(f"{key}.") for name in known):
        return
    if key in REMOVED:
        raise PretrainError(f"{where}: {key} {REMOVED[key]}")
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "--help lists the known ones"
    raise PretrainError(f"{where}: unknown key {key}; {hint}")
