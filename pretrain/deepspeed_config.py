"""DeepSpeed's JSON as the user wrote it, with what the run's own config says filled in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.distribution import find_config
from pretrain.errors import PretrainError

# Each rank keeps the whole gradient and communicates once a step; ZeRO-2 and -3 do so at every
# micro-batch, which pays only where the memory is needed.
DEFAULT: dict[str, Any] = {
    "zero_optimization": {"stage": 1, "overlap_comm": False, "contiguous_gradients": True}
}

_FILLED_IN = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16",
    "fp16",
    "amp",
    "torch_autocast",
    "data_types",
    "communication_data_type",
    "optimizer",
    "scheduler",
)


def complete_deepspeed_config(
    config: PretrainConfig, num_ranks: int, precision: str
) -> dict[str, Any]:
    """The user's DeepSpeed JSON with batch sizes, clipping and precision filled in.

    Under bf16, gradients are accumulated and reduced in fp32: a bf16 sum of 32 micro-batches loses
    what is below 1/256 of it at every addition.

    Raises:
        PretrainError: the file is missing, no JSON, sets what this config already says, or asks for
            ZeRO-0 in bf16, where DeepSpeed accumulates in bf16 only.
    """
    content = _read(config.run.deepspeed_config)
    source = config.run.deepspeed_config or "the default"
    if twice := [key for key in _FILLED_IN if key in content]:
        raise PretrainError(
            f"{source} sets {', '.join(twice)}; these come from the run's own config "
            "(data.*, optimizer.*, run.precision): remove them there"
        )
    zero = content.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, dict) else None
    if stage not in (0, 1, 2, 3):
        raise PretrainError(
            f"{source}: zero_optimization.stage is expected to be 0, 1, 2 or 3, found {stage!r}; "
            "configs/deepspeed/ has an example of each"
        )
    if precision == "bf16" and stage == 0:
        raise PretrainError(
            f"run.deepspeed_config: {source} has ZeRO stage 0, under which DeepSpeed accumulates "
            "bf16 gradients in bf16; take configs/deepspeed/zero1.json, which costs no more, or "
            "set run.precision to fp32"
        )
    data = config.data
    content |= {
        "train_batch_size": data.global_batch_size,
        "train_micro_batch_size_per_gpu": data.micro_batch_size,
        "gradient_accumulation_steps": data.global_batch_size
        // (data.micro_batch_size * num_ranks),
        "gradient_clipping": config.optimizer.gradient_clipping,
        "bf16": {"enabled": precision == "bf16"},
        "steps_per_print": 10**12,  # its own log lines; ours are in metrics.py
    }
    # DeepSpeed's own timer would wait for the device twice a step; ours is in metrics.py.
    content.setdefault("timers", {"throughput": {"enabled": False}})
    if precision == "bf16":
        content |= {
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
        }
    return content


def _read(file: str | None) -> dict[str, Any]:
    if file is None:
        return dict(DEFAULT)
    path = find_config(Path(file))
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise PretrainError(
            f"run.deepspeed_config: {path} does not exist, seen from {Path.cwd()}; leave it out "
            "for ZeRO-1"
        ) from None
    except OSError as error:
        raise PretrainError(
            f"run.deepspeed_config: {path} can't be read ({error.strerror}); give a JSON file, or "
            "leave it out for ZeRO-1"
        ) from None
    except ValueError as error:
        raise PretrainError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise PretrainError(f"{path}: a JSON object is expected, as in configs/deepspeed/")
    return content
