"""The command line: `python -m pipeline --config FILE`, `… inspect DATA`, `… verify DATA`."""

from __future__ import annotations

import argparse
import difflib
import io
import logging
import os
import signal
import sys
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import jsonargparse

from pipeline import config_errors
from pipeline.config import Config, section_keys
from pipeline.distribution import answer_version, find_config
from pipeline.errors import PipelineError
from pipeline.progress import progress_display
from pipeline.store.folder import Folder


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0; 1 for a folder that `verify` finds damaged; 2 for what the user can fix;
        69 when a worker process was lost, and 130 after Ctrl-C: the same command continues.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for library in ("aiobotocore", "botocore"):  # they tell where they found the credentials
        logging.getLogger(library).setLevel(logging.WARNING)
    answer_version(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # under LANG=C it may take ASCII alone
        sys.stdout.reconfigure(errors="replace")
    commands = {"inspect": _inspect, "verify": _verify}
    try:
        if arguments and arguments[0] in commands:
            return commands[arguments[0]](arguments[1:])
        return _run(arguments)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `inspect DATA | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush
        return 128 + signal.SIGPIPE


def _run(arguments: list[str]) -> int:
    ours, beams = _separate(arguments)
    config, values = parse(ours)
    _check_beam_options(beams, values.runner)
    from pipeline.run import run

    run(config, [f"--runner={values.runner}", *beams], values.overwrite, progress_display())
    return 0


def parse(arguments: list[str]) -> tuple[Config, Any]:
    """The checked config, and the values that are no part of it (`runner`, `overwrite`)."""
    arguments = _with_installed_configs(arguments)
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(
        prog="python -m pipeline",
        description="Corpora to tar shards. Other commands: `inspect DATA`, `verify DATA`. "
        "Beam's own options (--direct_num_workers, …) pass through.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file; other options override it.")
    parser.add_class_arguments(Config)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="Make the folder again, though it was begun or finished with another config.",
    )
    parser.add_argument(
        "--runner",
        default="DirectRunner",
        help="Beam runner; DirectRunner is one worker process a core of this machine.",
    )
    config_errors.check_repeated_keys(arguments)
    try:
        values = parser.parse_args(arguments)
        for key, kind in get_type_hints(Config).items():
            if is_dataclass(kind) and not isinstance(values[key], jsonargparse.Namespace):
                raise ValueError(f"{key}: {config_errors.NO_SETTINGS}. Got {values[key]}")
        made = parser.instantiate(values)
        config = Config(**{key: made[key] for key in section_keys()[""]})
    except PipelineError as error:
        raise PipelineError(f"{config_errors.files(arguments)}{error}") from error
    except (argparse.ArgumentError, jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise PipelineError(config_errors.in_plain_words(str(error), arguments)) from error
    return config, values


def _with_installed_configs(arguments: list[str]) -> list[str]:
    """`--config configs/…` as the file that there is."""
    found = list(arguments)
    for index, argument in enumerate(arguments):
        if argument.startswith("--config=configs/"):
            found[index] = f"--config={find_config(Path(argument.removeprefix('--config=')))}"
        elif argument.startswith("configs/") and arguments[index - 1] == "--config":
            found[index] = str(find_config(Path(argument)))
    return found


def _separate(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments for us and for Beam: each option with the values behind it."""
    ours: list[str] = []
    beams: list[str] = []
    target = ours
    for argument in arguments:
        if argument.startswith("--"):
            first = _name(argument).split(".")[0].removesuffix("+")
            target = ours if first in _our_options() else beams
            if target is beams:
                _check_for_typo_of_ours(argument)
        target.append(argument)
    return ours, beams


def _name(argument: str) -> str:
    return argument[2:].split("=", 1)[0]


def _our_options() -> set[str]:
    return {*section_keys()[""], "config", "overwrite", "runner", "help", "print_config"}


def _check_for_typo_of_ours(argument: str) -> None:
    """PipelineError for an option that is nearly one of ours and none of Beam's."""
    name = _name(argument)
    near = difflib.get_close_matches(name.split(".")[0], _our_options(), 1, cutoff=0.75)
    if near and name not in _beam_options(runner=""):
        raise PipelineError(f"--{name}: no such option; did you mean --{near[0]}?")


def _check_beam_options(beams: list[str], runner: str) -> None:
    """PipelineError for an option that nobody takes, as far as can be known here.

    The job servers of these runners take options that only their Java side knows.
    """
    elsewhere = any(name in runner.lower() for name in ("flink", "spark", "portable", "dataflow"))
    for name in [_name(argument) for argument in beams if argument.startswith("--")]:
        if name in _beam_options(runner):
            continue
        cutoff = 0.9 if elsewhere else 0.6  # a typo, where others' options can't be told from one
        near = difflib.get_close_matches(name, [*_our_options(), *_beam_options(runner)], 1, cutoff)
        hint = f"; did you mean --{near[0]}?" if near else ""
        if near or not elsewhere:
            raise PipelineError(
                f"--{name}: neither an option of this command nor of Beam's {runner}{hint}"
            )
    if beams:
        from pipeline.run import load_graph

        load_graph().check_values(beams, runner)


@cache
def _beam_options(runner: str) -> set[str]:
    """Beam is asked, and imported, only for what isn't ours."""
    from pipeline.run import load_graph

    names: set[str] = load_graph().beam_option_names(runner)
    return names


def _inspect(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline inspect")
    parser.add_argument("data", type=Folder.at, help="A finished data folder, or its URL.")
    parser.add_argument("--sequences", type=int, default=4, help="Decoded sequences to print.")
    parser.add_argument("--picture", type=Path, help="PNG to draw; default: none.")
    values = parser.parse_args(arguments)
    from pipeline.report.inspect import inspect

    print(inspect(values.data, values.picture, max(values.sequences, 0)), flush=True)
    return 0


def _verify(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline verify")
    parser.add_argument("data", type=Folder.at, help="A finished data folder, or its URL.")
    from pipeline.report.verify import verify

    return verify(parser.parse_args(arguments).data)


if __name__ == "__main__":
    sys.exit(main())
