"""What the stage's commands say: their own log lines and errors, without the libraries' chatter."""

import argparse
import logging
import warnings
from typing import Any, NoReturn

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


def set_up() -> None:
    """Log to standard error, and quieten which head weights are new and a bar for each load."""
    from transformers.utils import logging as hf_logging  # seconds that the subcommands don't need

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
