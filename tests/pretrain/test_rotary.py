"""Turned queries and keys, against Hugging Face's Llama and against shifted positions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from pretrain.rotary import rotation, turn

HEADS, WIDTH = 2, 8


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("theta", [10_000.0, 160_000.0])
def test_pairs_turn_as_llamas_do(theta: float) -> None:
    positions = torch.tensor([[0, 1, 5, 63], [9, 2, 2, 400]])
    config = LlamaConfig(
        hidden_size=HEADS * WIDTH,
        num_attention_heads=HEADS,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    cosine, sine = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    query, key = draw(2, 4, HEADS * WIDTH), draw(2, 4, HEADS * WIDTH, seed=1)
    split = [x.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2) for x in (query, key)]
    expected = apply_rotary_pos_emb(*split, cosine, sine)
    by = rotation(positions, WIDTH, theta)
    for states, turned in zip((query, key), expected, strict=True):
        found = turn(states, by)
        torch.testing.assert_close(found, turned.transpose(1, 2).flatten(2), atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(shift=st.integers(0, 400), seed=st.integers(0, 99))
def test_products_know_distances_alone(shift: int, seed: int) -> None:
    query, key = draw(1, 1, WIDTH, seed=seed), draw(1, 1, WIDTH, seed=seed + 100)
    positions = torch.arange(6).expand(1, -1)

    def products(positions: torch.Tensor) -> torch.Tensor:
        by = rotation(positions, WIDTH, 10_000.0)
        q, k = (turn(x.expand(-1, 6, -1), by) for x in (query, key))
        return q @ k.transpose(1, 2)

    here = products(positions)
    torch.testing.assert_close(here, products(positions + shift), atol=2e-3, rtol=1e-3)
    assert not torch.allclose(here, products(2 * positions), atol=1e-2)


def test_angles_keep_their_precision_in_a_bf16_model() -> None:
    """The last positions of a long sequence would be turned by anything, rounded to 8 bits."""
    positions = torch.tensor([[509, 510]])
    fine = turn(draw(1, 2, HEADS * WIDTH), rotation(positions, WIDTH, 10_000.0))
    rough = turn(draw(1, 2, HEADS * WIDTH).bfloat16(), rotation(positions, WIDTH, 10_000.0))
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), fine, atol=0.05, rtol=0.02)


def test_the_gradient_is_that_of_the_formula() -> None:
    states = draw(2, 5, HEADS * WIDTH).double().requires_grad_()
    by = rotation(torch.arange(5).expand(2, -1), WIDTH, 10_000.0)
    turn(states.float(), by).square().sum().backward()  # lengths stay: d/dx |turn(x)|^2 = 2 x
    torch.testing.assert_close(states.grad, 2 * states.detach(), atol=1e-5, rtol=1e-5)
    weight = draw(2, 5, HEADS * WIDTH, seed=3)
    plain = draw(2, 5, HEADS * WIDTH).requires_grad_()
    first, second = plain.unflatten(-1, (HEADS, 2, WIDTH // 2)).unbind(-2)
    pairs = (first * by.cosine - second * by.sine, second * by.cosine + first * by.sine)
    (torch.stack(pairs, dim=-2).flatten(2) * weight).sum().backward()
    ours = draw(2, 5, HEADS * WIDTH).requires_grad_()
    (turn(ours, by) * weight).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad)
