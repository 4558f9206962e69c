"""Schedules as functions of progress, and which parameters decay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from pretrain.budget import BudgetConfig, Progress
from pretrain.engine import make_optimizer
from pretrain.model import LateMaskModel
from pretrain.optim import learning_rate, parameter_groups
from pretrain.recipe import MaskingConfig, ModelConfig, OptimizerConfig


def tiny_model(layers: int = 1, late_layers: int = 0) -> LateMaskModel:
    config = ModelConfig(
        hidden_size=8, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=10, vocab_size=20,
    )  # fmt: skip
    return LateMaskModel(config, MaskingConfig(late_layers=late_layers))


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


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("roberta", {"position_embeddings.weight"}),
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
