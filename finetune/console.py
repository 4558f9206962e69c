"""What the stage's commands say: their own log lines, without the libraries' chatter."""

import logging
import warnings

from transformers.utils import logging as hf_logging


def set_up() -> None:
    """Log to standard error, and quieten which head weights are new and a bar for each load."""
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
