"""What the stage's commands say: their own log lines and errors, without the libraries' chatter."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from finetune.distribution import answer_version
from finetune.errors import FinetuneError


class CommandParser(argparse.ArgumentParser):
    """argparse for subcommands: errors are ours, one line; --help keeps the text as it stands."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **fields
        )

    def error(self, message: str) -> NoReturn:
        """What argparse calls for any mistake."""
        raise FinetuneError(f"{message[0].upper()}{message[1:]}. All flags: --help.")


def positive(text: str) -> int:
    """A flag's number, as `type` of argparse."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number from 1")
    return int(text)


def run(name: str, main: Callable[[Sequence[str]], None], resumable: bool = False) -> None:
    """`python -m finetune.NAME`: `main` of the command line; a user's mistake is one line, exit 2.

    `resumable`: the same command continues what Ctrl-C interrupts.
    """
    set_up()
    answer_version(sys.argv[1:])
    try:
        main(sys.argv[1:])
    except FinetuneError as error:
        print(f"finetune.{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        how = "; the same command resumes from here" if resumable else ""
        print(f"finetune.{name}: interrupted{how}.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has stopped; Python would try once more to write it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def set_up() -> None:
    """Log to standard error, and quieten which head weights are new and a bar for each load.

    Output is UTF-8 in any locale. Call it before transformers is imported, which takes seconds that
    not every command has to spend.
    """
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("transformers").setLevel(logging.ERROR)  # where it is imported already
    # DeepSpeed says on standard output that there is no GPU, amid what a command prints.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno > logging.WARNING)
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    # Of torch, at PEFT's own sparse tensors (SHiRA).
    warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
