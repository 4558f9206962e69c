"""DeepSpeed's JSON as the user wrote it, with what the run's own config says filled in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.errors import PretrainError

_FILLED_IN = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16",
    "optimizer",
    "scheduler",
)


def complete_deepspeed_config(
    config: PretrainConfig, num_ranks: int, precision: str
) -> dict[str, Any]:
    """The user's DeepSpeed JSON with batch sizes, clipping and precision filled in.

    Raises:
        PretrainError: the file is missing, no JSON, or sets what this config already says.
    """
    path = Path(config.run.deepspeed_config)
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise PretrainError(f"run.deepspeed_config: {path} does not exist") from None
    except json.JSONDecodeError as error:
        raise PretrainError(f"{path}: no valid JSON: {error}") from None
    if twice := [key for key in _FILLED_IN if key in content]:
        raise PretrainError(
            f"{path} sets {', '.join(twice)}; these come from the run's own config "
            "(data.*, optimizer.*, run.precision): remove them there"
        )
    data = config.data
    return content | {
        "train_batch_size": data.global_batch_size,
        "train_micro_batch_size_per_gpu": data.micro_batch_size,
        "gradient_accumulation_steps": data.global_batch_size
        // (data.micro_batch_size * num_ranks),
        "gradient_clipping": config.optimizer.gradient_clipping,
        "bf16": {"enabled": precision == "bf16"},
        "steps_per_print": 10**12,  # its own log lines; ours are in metrics.py
    }
