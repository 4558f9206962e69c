"""Turned queries and keys, against Hugging Face's Llama and against shifted places."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pretrain.layers import Block
from pretrain.recipe import ModelConfig
from pretrain.rotary import angles_of, turn

HEADS, WIDTH = 2, 8


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_pairs_turn_as_llamas_do() -> None:
    places = torch.tensor([[0, 1, 5, 63], [9, 2, 2, 400]])
    angles = angles_of(places, WIDTH)
    query, key = draw(2, 4, HEADS * WIDTH), draw(2, 4, HEADS * WIDTH, seed=1)
    both = torch.cat([angles, angles], dim=-1)
    split = [x.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2) for x in (query, key)]
    expected = apply_rotary_pos_emb(*split, both.cos(), both.sin())
    for states, turned in zip((query, key), expected, strict=True):
        torch.testing.assert_close(turn(states, angles), turned.transpose(1, 2).flatten(2))


@settings(deadline=None)
@given(shift=st.integers(0, 400), last=st.none() | st.integers(1, 6), seed=st.integers(0, 99))
def test_only_distances_count(shift: int, last: int | None, seed: int) -> None:
    block = Block(ModelConfig(vocab_size=9, hidden_size=16, num_attention_heads=HEADS,
                              intermediate_size=32, dropout=0.0))  # fmt: skip
    hidden, places = draw(3, 6, 16, seed=seed), torch.arange(6).expand(3, -1)
    with torch.no_grad():
        here = block(hidden, last, angles_of(places, WIDTH))
        there = block(hidden, last, angles_of(places + shift, WIDTH))
        stretched = block(hidden, last, angles_of(2 * places, WIDTH))
        together = block(hidden, last, angles_of(0 * places, WIDTH))
        plain = block(hidden, last)
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together, plain)
    assert not torch.allclose(here, stretched, atol=1e-4)


def test_angles_keep_their_precision_in_a_bf16_model() -> None:
    """A long row's last places would be turned by anything, were they rounded to 8 bits."""
    places = torch.tensor([[509, 510]])
    fine = turn(draw(1, 2, HEADS * WIDTH), angles_of(places, WIDTH))
    rough = turn(draw(1, 2, HEADS * WIDTH).bfloat16(), angles_of(places, WIDTH))
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), fine, atol=0.05, rtol=0.02)
