"""A line now and then while a job trains, where no bar can be drawn."""

import logging
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10


class LogLines(TrainerCallback):
    """Share done, loss and seconds left, in place of the Trainer's printed dictionaries."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.began = self.last_line = time.monotonic()
        self.first_step = state.global_step
        resumed = f", from step {state.global_step:,} on" if state.global_step else ""
        logger.info("%s: %s steps%s", self.name, f"{state.max_steps:,}", resumed)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One line, unless the last one is recent."""
        now, loss = time.monotonic(), kwargs["logs"].get("loss")
        if loss is None or now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        steps = state.global_step - self.first_step
        left = (now - self.began) / max(1, steps) * (state.max_steps - state.global_step)
        share = 100 * state.global_step / state.max_steps
        logger.info("%s: %3.0f %%, loss %.3f, about %.0f s left", self.name, share, loss, left)
