"""Writes the pages of this folder from the dataclasses that hold the settings.

python docs/reference/make.py
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import docstring_parser

from finetune.jobs.help import FLAGS
from pipeline.cleaning import filters
from pipeline.config import Cleaning, Config
from pretrain.config import PretrainConfig

HERE = Path(__file__).parent
HEADER = "| {key} | type | default | |\n| --- | --- | --- | --- |"


def table(settings: type, prefix: str = "", key: str = "key") -> Iterator[str]:
    """The lines of a table with a row for each field that is no section of its own."""
    yield HEADER.format(key=key)
    texts = docstring_parser.parse_from_object(settings).params
    said = {text.arg_name: text.description or "" for text in texts}
    types = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        if sections(types[field.name]) and not is_list(types[field.name]):
            continue
        text = " ".join((field.metadata.get("help") or said.get(field.name, "")).split())
        cells = (f"`{prefix}{field.name}`", type_name(types[field.name]), default(field), text)
        yield f"| {' | '.join(escaped(cell) for cell in cells)} |"


def sections(kind: Any) -> list[type]:
    """The dataclasses that a type names."""
    if dataclasses.is_dataclass(kind):
        return [typing.cast(type, kind)]
    return [found for part in typing.get_args(kind) for found in sections(part)]


def is_list(kind: Any) -> bool:
    """Whether it is a list, of sections for example."""
    return typing.get_origin(kind) is list


def type_name(kind: Any) -> str:
    """As a reader of YAML calls it: `int`, `a, b or c`, `list of str`, `int or null`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return either([f"`{value}`" for value in arguments])
    if origin in (typing.Union, UnionType):
        return either([type_name(part) for part in arguments])
    if origin in (list, tuple):
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "mapping"
    if kind is type(None):
        return "null"
    name = "any" if kind is Any else kind.__name__
    return f"[{name}](#{name.lower()})" if dataclasses.is_dataclass(kind) else str(name)


def either(names: list[str]) -> str:
    """`a, b or c`."""
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def default(field: dataclasses.Field) -> str:
    """The value that holds where none is given; `required` where one must be."""
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        if dataclasses.is_dataclass(value):
            return ""
        return f"`{value}`" if value else "empty"
    if field.default is dataclasses.MISSING:
        return "required"
    if field.default is None:
        return ""
    value = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{value}`" if value != "" else "empty"


def escaped(cell: str) -> str:
    """A cell without what would end it."""
    return cell.replace("|", "\\|")


def first_line(settings: type) -> str:
    """What a dataclass says of itself."""
    return docstring_parser.parse(settings.__doc__ or "").short_description or ""


def section(settings: type, key: str = "") -> Iterator[str]:
    """A heading, what it is, its table; then the same of the sections in it."""
    types = typing.get_type_hints(settings)
    yield from ("", f"## {key or settings.__name__}", "", first_line(settings), "")
    yield from table(settings, prefix=f"{key}." if key else "")
    for field in dataclasses.fields(settings):
        for inner in sections(types[field.name]):
            name = inner.__name__ if is_list(types[field.name]) else field.name
            yield from section(inner, name if is_list(types[field.name]) else joined(key, name))


def joined(key: str, name: str) -> str:
    """A dotted key."""
    return f"{key}.{name}" if key else name


def pipeline() -> Iterator[str]:
    """Every key of a corpus."""
    yield "# Settings of the pipeline"
    yield ""
    yield "Keys of a YAML file given by `python -m pipeline --config FILE`, and flags:"
    yield "`--KEY VALUE`. [The data pipeline](../pipeline.md) explains them."
    yield from ("", "## Top level", "", *table(Config))
    types = typing.get_type_hints(Config)
    for field in dataclasses.fields(Config):
        for inner in sections(types[field.name]):
            yield from section(inner, "" if is_list(types[field.name]) else field.name)
    yield from (
        "",
        "## Filters",
        "",
        "Under `cleaning.filters`, by name; each drops documents.",
        "",
    )
    for name in filters.names(Cleaning()):
        yield f"- `{name}`"


def pretrain() -> Iterator[str]:
    """Every key of a pretraining run."""
    yield "# Settings of pretraining"
    yield ""
    yield "Keys of a YAML file given by `pretrain/main.py --config FILE`, and flags:"
    yield "`--GROUP.KEY VALUE`. [Late masking](../pretraining.md) explains them."
    types = typing.get_type_hints(PretrainConfig)
    for field in dataclasses.fields(PretrainConfig):
        for inner in sections(types[field.name]):
            yield from section(inner, field.name)


def finetune() -> Iterator[str]:
    """Every flag of `python -m finetune.glue` that isn't one of transformers'."""
    yield "# Flags of finetuning"
    yield ""
    yield "Flags of `python -m finetune.glue`, and keys of a YAML file given by `--config FILE`;"
    yield "beside them all of transformers' `TrainingArguments`. [Tasks](../glue.md) and"
    yield "[masks](../masks.md) explain them. `python -m finetune.predict`, `serve`, `maskfile` and"
    yield "`families` list theirs with `--help`."
    for flags in FLAGS:
        name = re.sub(r"`", "", first_line(flags)).rstrip(".")
        yield from ("", f"## {name}", "", *table(flags, prefix="--", key="flag"))


PAGES = {"pipeline.md": pipeline, "pretrain.md": pretrain, "finetune.md": finetune}


def main() -> None:
    """Write all pages."""
    for name, lines in PAGES.items():
        (HERE / name).write_text("\n".join(lines()) + "\n")


if __name__ == "__main__":
    main()
