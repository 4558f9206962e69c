"""The command line: `python -m pipeline --config FILE`, `… inspect DATA`, `… verify DATA`."""

from __future__ import annotations

import logging
import sys
import time

from jsonargparse import ArgumentParser, set_parsing_settings
from tqdm import tqdm

from pipeline.config import Config
from pipeline.errors import PipelineError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code: 0, 1 after a user's error, 2 for a wrong command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    try:
        if arguments[:1] == ["inspect"]:
            from pipeline.report import inspect_command

            return inspect_command(arguments[1:])
        if arguments[:1] == ["verify"]:
            from pipeline.verify import verify_command

            return verify_command(arguments[1:])
        return run_command(arguments)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def run_command(arguments: list[str]) -> int:
    """`python -m pipeline --config FILE [--key value …] [--overwrite] [Beam options]`."""
    from pipeline.run import run

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog="python -m pipeline", description="Corpora to tar shards.")
    parser.add_argument("--config", action="config", help="YAML file; other options override it.")
    parser.add_class_arguments(Config)
    parser.add_argument("--overwrite", action="store_true", help="Make a begun folder anew.")
    parser.add_argument("--runner", default="DirectRunner", help="Beam runner.")
    values = parser.parse_args(arguments)
    objects = parser.instantiate(values)
    config = Config(**{k: v for k, v in objects.items() if k in Config.__dataclass_fields__})
    run(config, [f"--runner={values.runner}"], values.overwrite, show_progress())
    return 0


def show_progress():  # noqa: ANN201
    """A bar on a terminal, else a log line every ten seconds."""
    bars: dict[str, tqdm] = {}
    last = {"time": time.monotonic()}

    def progress(step: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            bar = bars.setdefault(step, tqdm(desc=step, total=total))
            bar.update(done - bar.n)
        elif time.monotonic() - last["time"] > 10:
            last["time"] = time.monotonic()
            logging.info("%s: %d of %d", step, done, total)

    return progress


if __name__ == "__main__":
    sys.exit(main())
