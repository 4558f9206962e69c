"""Schedules as functions of progress, and which parameters decay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LRScheduler
from transformers import (
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_wsd_schedule,
)

from pretrain.budget import BudgetConfig, Progress
from pretrain.engine import make_optimizer
from pretrain.errors import PretrainError
from pretrain.model import LateMaskModel
from pretrain.optim import learning_rate, parameter_groups
from pretrain.recipe import MaskingConfig, ModelConfig, OptimizerConfig


def tiny_model(layers: int = 1, late_layers: int = 0) -> LateMaskModel:
    config = ModelConfig(
        hidden_size=8, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=10, vocab_size=20,
    )  # fmt: skip
    return LateMaskModel(config, MaskingConfig(late_layers=late_layers))


def stock_schedule(
    optimizer: torch.optim.Optimizer, name: str, warmup: int, decay: int, steps: int
) -> LRScheduler:
    if name == "linear":
        return get_linear_schedule_with_warmup(optimizer, warmup, steps)
    if name == "cosine":
        return get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    return get_wsd_schedule(optimizer, warmup, decay, num_training_steps=steps, decay_type="1-sqrt")


@pytest.mark.parametrize(
    ("name", "warmup", "decay"),
    [
        *(("linear", 10, 10), ("linear", 0, 10), ("cosine", 10, 10), ("cosine", 0, 10)),
        *(("trapezoid", 10, 10), ("trapezoid", 0, 30), ("trapezoid", 60, 40)),
        *(("trapezoid", 10, 0), ("trapezoid", 0, 100)),
    ],
)
def test_learning_rate_is_that_of_transformers_at_every_step(
    name: str, warmup: int, decay: int
) -> None:
    config = OptimizerConfig(
        lr=1e-3,
        schedule=name,
        warmup=warmup / 100,
        decay=decay / 100,  # type: ignore[arg-type]
    )
    optimizer = make_optimizer(tiny_model(), config)
    schedule = stock_schedule(optimizer, name, warmup, decay, steps=100)
    for step in range(100):
        expected = schedule.get_last_lr()[0]
        # A root makes of what a fraction is rounded by, 1e-16, a difference of 1e-8.
        assert learning_rate(config, step / 100) == pytest.approx(expected, rel=1e-7, abs=1e-12)
        optimizer.step()
        schedule.step()


@given(
    st.sampled_from(["linear", "cosine", "trapezoid"]),
    st.floats(0, 0.99),
    st.floats(0, 1),
    st.floats(0, 1),
)
@example("linear", 0.5038317150360377, 0.0, 0.5038317150360377)
def test_a_rate_lies_between_0_and_its_peak(
    name: str, warmup: float, decay: float, fraction: float
) -> None:
    share = min(decay, 1 - warmup) if name == "trapezoid" else OptimizerConfig.decay
    config = OptimizerConfig(schedule=name, warmup=warmup, decay=share)  # type: ignore[arg-type]
    assert 0 <= learning_rate(config, fraction) <= config.lr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"schedule": "trapezoid", "warmup": 0.95},
            r"warmup = 0\.95 and optimizer\.decay = 0\.1 add",
        ),
        ({"decay": 0.2}, r"decay is 0\.2, which the linear schedule doesn't have"),
        ({"schedule": "cosine", "decay": 0.2}, r"which the cosine schedule doesn't have"),
        ({"schedule": "trapezoid", "decay": 1.5}, r"optimizer\.decay is 1\.5"),
    ],
)
def test_impossible_schedules_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PretrainError, match=message) as error:
        OptimizerConfig(**settings)
    assert "\n" not in str(error.value)


def test_the_nearest_limit_counts() -> None:
    progress = Progress(step=10, tokens=500, flops=1e9, hours=1.0)
    assert progress.fraction(BudgetConfig(steps=100)) == 0.1
    assert progress.fraction(BudgetConfig(steps=100, tokens=1000)) == 0.5
    assert progress.fraction(BudgetConfig(steps=100, hours=0.5)) == 1.0
    assert progress.nearest_limit(BudgetConfig(steps=100, tokens=1000)) == "budget.tokens 1000"
    assert progress.nearest_limit(BudgetConfig(steps=100, hours=0.5)) == "budget.hours 0.5"


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("roberta", {"position_embeddings.weight", "token_type_embeddings.weight"}),
        ("bert", {"position_embeddings.weight", "token_type_embeddings.weight"}),
        ("modernbert", set()),
    ],
)
def test_vectors_and_positions_do_not_decay(name: str, tables: set[str]) -> None:
    model = LateMaskModel(replace(tiny_model().config, architecture=name), MaskingConfig())
    decayed, plain = parameter_groups(model, OptimizerConfig(weight_decay=0.1))
    names = {id(p): n for n, p in model.named_parameters()}
    assert all(p.ndim == 2 for p in decayed["params"])  # type: ignore[attr-defined]
    assert {names[id(p)] for p in plain["params"] if p.ndim > 1} == tables  # type: ignore[attr-defined]
    assert plain["weight_decay"] == 0.0


def test_muon_is_torchs_on_the_matrices_of_the_layers_and_adamw_elsewhere() -> None:
    config = OptimizerConfig(name="muon", lr=1e-3, muon_lr=0.03, weight_decay=0.1)
    ours, theirs = tiny_model(), tiny_model()
    theirs.load_state_dict(ours.state_dict())
    optimizer = make_optimizer(ours, config)
    inner = [n for n, p in theirs.named_parameters() if p.ndim == 2 and n.startswith("layers.")]
    assert len(inner) == 4  # queries to values as one, output, two of the feed-forward network
    named = dict(theirs.named_parameters())
    muon = torch.optim.Muon([named[n] for n in inner], lr=0.03, weight_decay=0.1, momentum=0.95)
    rest = parameter_groups(theirs, config)[:2]
    adamw = torch.optim.AdamW(rest, lr=1e-3, betas=config.betas, eps=config.eps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        with torch.compiler.set_stance("force_eager"):  # compiling takes longer than it saves
            optimizer.step()
        muon.step()
        adamw.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # torch's orthogonalization is in bf16: updates of 0.03 agree to a few hundredths.
        close = 4 * 0.03 * 0.05 if name in inner else 1e-6
        assert torch.allclose(a, b, atol=close, rtol=0), name
