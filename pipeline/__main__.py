"""The command line: `python -m pipeline --config FILE`, `… inspect DATA`, `… verify DATA`."""

from __future__ import annotations

import argparse
import difflib
import itertools
import logging
import re
import sys
from pathlib import Path
from typing import Any

import jsonargparse

from pipeline.config import Config, option_names
from pipeline.errors import PipelineError
from pipeline.progress import progress_display
from pipeline.store.folder import Folder


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code: 0, or 1 after an error that the user can mend."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    commands = {"inspect": _inspect, "verify": _verify}
    try:
        if arguments and arguments[0] in commands:
            return commands[arguments[0]](arguments[1:])
        return _run(arguments)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    ours, beams = _separate(arguments)
    config, values = parse(ours)
    from pipeline.run import run

    run(config, [f"--runner={values.runner}", *beams], values.overwrite, progress_display())
    return 0


def parse(arguments: list[str]) -> tuple[Config, Any]:
    """The checked config, and the values that are no part of it (`runner`, `overwrite`)."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(
        prog="python -m pipeline",
        description="Corpora to tar shards. Other commands: `inspect DATA`, `verify DATA`. "
        "Beam's own options (--direct_num_workers, …) pass through.",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file; other options override it.")
    parser.add_class_arguments(Config)
    parser.add_argument("--overwrite", action="store_true", help="Make a begun folder anew.")
    parser.add_argument(
        "--runner",
        default="DirectRunner",
        help="Beam runner; DirectRunner is one worker process a core of this machine.",
    )
    try:
        values = parser.parse_args(arguments)
        config = Config(
            **{
                k: v
                for k, v in parser.instantiate(values).items()
                if k in option_names(sections=False)
            }
        )
    except PipelineError as error:
        raise PipelineError(f"{_files(arguments)}{error}") from error
    except (argparse.ArgumentError, jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise PipelineError(f"{_files(arguments)}{error}{_did_you_mean(str(error))}") from error
    return config, values


def _files(arguments: list[str]) -> str:
    """Which config files an error may stand in."""
    following = itertools.pairwise(arguments)
    files = [value for option, value in following if option == "--config"]
    files += [a.split("=", 1)[1] for a in arguments if a.startswith("--config=")]
    return "".join(f"{file}: " for file in files)


def _did_you_mean(message: str) -> str:
    """The nearest key to the one that isn't accepted."""
    words = re.findall(r"Option '([\w.]+)'", message)
    for word in words:
        near = difflib.get_close_matches(word, option_names(sections=True), 1)
        if near:
            return f"; did you mean {near[0]!r}?"
    return ""


def _separate(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments for us and for Beam, which is asked (and imported) only for what isn't ours."""
    ours: list[str] = []
    beams: list[str] = []
    target = ours
    for argument in arguments:
        if argument.startswith("--"):
            name = argument[2:].split("=", 1)[0]
            first = name.split(".")[0].removesuffix("+")
            known = {
                *option_names(sections=False),
                "config",
                "overwrite",
                "runner",
                "help",
                "print_config",
            }
            target = ours if first in known else beams
            if target is beams:
                _check_beam_option(name, known)
        target.append(argument)
    return ours, beams


def _check_beam_option(name: str, known: set[str]) -> None:
    from pipeline.run import load_graph

    graph = load_graph()
    beams: set[str] = set()
    for dask in (False, True):
        beams = graph.beam_option_names(dask)
        if name in beams:
            return
    near = difflib.get_close_matches(name, [*known, *beams], 1)
    hint = f"; did you mean --{near[0]}?" if near else ""
    raise PipelineError(f"--{name}: neither an option of ours nor of Beam's{hint}")


def _inspect(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline inspect")
    parser.add_argument("data", type=Folder.at, help="A finished data folder, or its URL.")
    parser.add_argument("--rows", type=int, default=4, help="Decoded rows to print.")
    parser.add_argument("--picture", type=Path, help="PNG to draw; default ./NAME-inspect.png.")
    values = parser.parse_args(arguments)
    from pipeline.report.inspect import inspect

    picture = values.picture or Path(f"{values.data.name}-inspect.png")
    print(inspect(values.data, picture, max(values.rows, 0)))
    return 0


def _verify(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline verify")
    parser.add_argument("data", type=Folder.at, help="A finished data folder, or its URL.")
    from pipeline.report.verify import verify

    return verify(parser.parse_args(arguments).data)


if __name__ == "__main__":
    sys.exit(main())
