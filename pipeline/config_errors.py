"""What is wrong with the keys of a configuration, in one line of our own words.

jsonargparse reads keys and values; its messages name Python's types and classes.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from pipeline.config import section_keys
from pipeline.errors import PipelineError

NO_SETTINGS = "Expected settings, as `SETTING: VALUE`, or no such key"


def in_plain_words(message: str, arguments: list[str]) -> str:
    """One line for what jsonargparse says of a command line; it names the file where that errs."""
    message = _without_types(message)
    where = files(arguments) if _stands_in_a_file(message, arguments) else ""
    return f"{where}{message}{_remedy(message)}"


def files(arguments: list[str]) -> str:
    """Which config files an error may stand in, to begin its message with."""
    return "".join(f"{file}: " for file in _config_values(arguments))


def check_repeated_keys(arguments: list[str]) -> None:
    """PipelineError for a key that a config gives twice: YAML takes the last, and says nothing."""
    for value in _config_values(arguments):
        is_file = "\n" not in value and Path(value).is_file()
        try:
            text = Path(value).read_text() if is_file else value
            root = yaml.compose(text, yaml.SafeLoader)
        except (OSError, ValueError, yaml.YAMLError):
            continue  # jsonargparse tells what is wrong
        for key, first, again in _repeated_keys(root, "", set()):
            raise PipelineError(
                f"{value if is_file else '--config'}: {key}: given in line {first} and again in "
                f"line {again}; keep one of them"
            )


def _repeated_keys(
    node: yaml.Node | None, prefix: str, seen: set[yaml.Node]
) -> Iterator[tuple[str, int, int]]:
    """(dotted key, line, line) of the keys that a mapping has twice, at any depth."""
    if node in seen:  # an alias, maybe of what it stands in
        return
    if isinstance(node, yaml.SequenceNode):
        seen.add(node)
        for index, item in enumerate(node.value):
            yield from _repeated_keys(item, f"{prefix}[{index}]", seen)
    elif isinstance(node, yaml.MappingNode):
        seen.add(node)
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            dotted = f"{prefix}.{name}" if prefix else name
            if name in lines and key.tag != "tag:yaml.org,2002:merge":
                yield dotted, lines[name], line
            lines[name] = line
            yield from _repeated_keys(value, dotted, seen)


def _config_values(arguments: list[str]) -> list[str]:
    following = itertools.pairwise(arguments)
    values = [value for option, value in following if option == "--config"]
    return values + [a.split("=", 1)[1] for a in arguments if a.startswith("--config=")]


def _without_types(message: str) -> str:
    """What jsonargparse says, without its class paths and type names, in one line."""
    message = re.sub(r"Problem with given class_path '[^']*':", "", message)
    message = re.sub(r'Parser key "([^"]*)":', r"\1:", message)
    message = re.sub(r"an? typing\.Literal\[([^\]]*)\]", r"one of \1", message)
    message = re.sub(r"an? <class '(\w+)'>", r"\1", message)
    message = message.replace("a dot import path string: ", "keys with values. Got value: ")
    message = " ".join(message.replace("Got value:", "Got").split())
    return re.sub(
        r"^(.*?): Does not validate against any of the Union subtypes .*? Errors: - (.*?)"
        r" - Expected NoneType.* Given value: (.*)$",
        lambda found: _of_an_optional(*found.groups()),
        message,
    )


def _of_an_optional(key: str, reason: str, value: str) -> str:
    """What is wrong with a key whose value may be missing."""
    if key not in section_keys():
        return f"{key}: {reason}. Got {value}"
    if reason.startswith("the following arguments are required: "):
        return f"{key}.{reason.partition(': ')[2]}: missing"
    if not reason.startswith(("Not a valid subclass", "Expected keys with values")):
        return f"{key}: {reason}"
    if value.lower() in ("true", "yes", "on"):
        usual = "{paths: [FILE, …]}" if key == "decontamination" else "{}"
        return (
            f"{key}: Got {value}; write `{key.rpartition('.')[2]}: {usual}` for the usual settings"
        )
    if value.lower() in ("false", "no", "off"):
        return f"{key}: Got {value}; leave the key out, or write null, to do without"
    return f"{key}: {NO_SETTINGS}. Got {value}"


def _stands_in_a_file(message: str, arguments: list[str]) -> bool:
    """False where the key of an error is given on the command line."""
    key = message.partition(":")[0]
    given = [a[2:].split("=", 1)[0] for a in arguments if a.startswith("--")]
    return key != "unrecognized arguments" and not any(
        name == key or name.startswith(f"{key}.") for name in given
    )


def _remedy(message: str) -> str:
    """The nearest key to one that isn't accepted, or what to do with a word that isn't a word."""
    if re.search(r"Expected str\. Got (True|False)$", message):
        return "; YAML takes yes, no, on and off for True and False: put the word in quotes"
    option = re.search(r"option '([\w.]+)'|unrecognized arguments: --([\w.]+)", message, re.I)
    if option is None:
        return ""
    section = re.match(r"Group '([\w.]+)'|([\w.]+): ", message)
    prefix = (section[1] or section[2] or "") if section else ""
    parts = [*prefix.split("."), *(option[1] or option[2]).split(".")]
    return _did_you_mean([part for part in parts if part])


def _did_you_mean(parts: list[str]) -> str:
    """The nearest key to the first part of a dotted one that isn't there: of its section first."""
    sections = section_keys()
    section = ""
    for part in parts:
        if part in sections[section]:
            section = f"{section}.{part}".lstrip(".")
            if section not in sections:
                return ""
            continue
        if near := _nearest(part, sections[section], cutoff=0.6):
            return f"; did you mean {near!r}?"
        by_key = {
            key: f"{name}.{key}".lstrip(".") for name, keys in sections.items() for key in keys
        }
        near = _nearest(part, list(by_key), cutoff=0.8)
        return f"; did you mean {by_key[near]!r}?" if near else ""
    return ""


def _nearest(word: str, keys: list[str], cutoff: float) -> str | None:
    near = difflib.get_close_matches(word, keys, 1, cutoff)
    near = near or [key for key in keys if len(word) > 2 and key.startswith(word)]
    return near[0] if near else None
