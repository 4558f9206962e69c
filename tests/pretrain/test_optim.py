"""Schedules as functions of progress, and which parameters decay."""

from __future__ import annotations

import pytest
from transformers import get_linear_schedule_with_warmup

from pretrain.config import BudgetConfig, MaskingConfig, ModelConfig, OptimizerConfig
from pretrain.model import LateMaskModel
from pretrain.optim import Progress, learning_rate, make_optimizer, parameter_groups


def tiny_model() -> LateMaskModel:
    config = ModelConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=10, vocab_size=20,
    )  # fmt: skip
    return LateMaskModel(config, MaskingConfig())


def test_learning_rate_is_hugging_faces_linear_schedule() -> None:
    config = OptimizerConfig(lr=1e-3, warmup=0.1)
    optimizer = make_optimizer(tiny_model(), config)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, 100)
    for step in range(100):
        expected = schedule.get_last_lr()[0]
        assert learning_rate(config, step / 100) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        schedule.step()


def test_the_nearest_limit_counts() -> None:
    progress = Progress(step=10, tokens=500, flops=1e9, hours=1.0)
    assert progress.fraction(BudgetConfig(steps=100)) == 0.1
    assert progress.fraction(BudgetConfig(steps=100, tokens=1000)) == 0.5
    assert progress.fraction(BudgetConfig(steps=100, hours=0.5)) == 1.0


def test_vectors_and_positions_do_not_decay() -> None:
    model = tiny_model()
    decayed, plain = parameter_groups(model, OptimizerConfig(weight_decay=0.1))
    names = {id(p): n for n, p in model.named_parameters()}
    assert all(p.ndim == 2 for p in decayed["params"])  # type: ignore[attr-defined]
    assert {names[id(p)] for p in plain["params"] if p.ndim > 1} == {  # type: ignore[attr-defined]
        "position_embeddings.weight"
    }
    assert plain["weight_decay"] == 0.0
