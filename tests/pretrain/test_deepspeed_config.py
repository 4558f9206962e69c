"""DeepSpeed's JSON completed: as DeepSpeed reads it, and refused where it says a thing twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.tiny_run import ROOT
from pretrain.config import PretrainConfig
from pretrain.deepspeed_config import complete_deepspeed_config
from pretrain.errors import PretrainError

# The fixture makes configs; nothing of it is used up by an example.
EXAMPLES = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@EXAMPLES
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 8), st.sampled_from([0, 1, 2, 3]))
def test_deepspeed_finds_the_batch_that_was_asked_for(
    tiny_config: Callable[..., PretrainConfig], micro: int, accumulated: int, ranks: int, stage: int
) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    whole = micro * accumulated * ranks
    config = tiny_config(
        *("--data.micro_batch_size", str(micro), "--data.global_batch_size", str(whole)),
        *("--run.deepspeed_config", str(ROOT / f"configs/deepspeed/zero{stage}.json")),
    )
    precision = "bf16" if stage else "fp32"
    completed = complete_deepspeed_config(config, ranks, precision)
    # DeepSpeed multiplies by the ranks of the process group, here one: it must find 1/ranks.
    read = DeepSpeedConfig(completed | {"train_batch_size": whole // ranks})
    assert completed["train_batch_size"] == whole
    assert read.gradient_accumulation_steps == accumulated
    assert read.train_micro_batch_size_per_gpu == micro
    assert read.zero_optimization_stage == stage
    assert read.bfloat16_config.enabled == (precision == "bf16")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            json.dumps({"bf16": {"enabled": True}, "optimizer": {}}),
            "mine.json sets bf16, optimizer",
        ),
        ("{", "mine.json: not valid JSON"),
        ("[]", "mine.json: a JSON object is expected"),
        ("{}", "stage is expected to be 0, 1, 2 or 3, found None"),
        (json.dumps({"zero_optimization": []}), "found None"),
        (json.dumps({"zero_optimization": {"stage": 5}}), "found 5"),
        (json.dumps({"fp16": {"enabled": True}}), "mine.json sets fp16"),
        (None, "mine.json does not exist"),
    ],
)
def test_refusals_name_the_file(
    tiny_config: Callable[..., PretrainConfig], tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_text(content)
    config = tiny_config("--run.deepspeed_config", str(file))
    with pytest.raises(PretrainError, match=message):
        complete_deepspeed_config(config, 1, "fp32")
