"""Initial weights, seen through stock RoBERTa's attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from pretrain.errors import PretrainError
from pretrain.initialise import initialise
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig, ModelConfig
from pretrain.rotary import angles_of
from tests.pretrain.conftest import SEQ_LEN

Exported = Callable[..., tuple[LateMaskModel, Path]]


@pytest.mark.parametrize("name", ["roberta", "roberta-prelayernorm", "bert"])
def test_heads_start_at_the_neighbours_in_every_layer(exported: Exported, name: str) -> None:
    _, folder = exported(
        *("--model.position_init", "neighbours", "--model.initializer_range", "null"),
        *("--model.hidden_size", "64", "--model.num_attention_heads", "4"),
        *("--model.architecture", name),
    )
    roberta = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.randint(5, 250, (64, SEQ_LEN), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attentions = roberta(ids, output_attentions=True).attentions
    assert len(attentions) == 2
    places = torch.arange(2, SEQ_LEN - 2)  # whose neighbours all exist
    for attention in attentions:
        elsewhere = attention.mean(0) * (1 - torch.eye(SEQ_LEN))  # a token is most like itself
        favourite = elsewhere[:, places].argmax(-1) - places  # [heads, places]
        wrong = favourite != torch.tensor([-1, 1, -2, 2])[:, None]
        # What tokens have in common is noise to the positions: at one of BERT's it wins.
        assert wrong.sum(-1).max() <= (1 if name == "bert" else 0)


def test_blocks_start_without_output(exported: Exported) -> None:
    _, folder = exported("--model.position_init", "neighbours")
    roberta = AutoModel.from_pretrained(folder).eval()
    ids = torch.randint(5, 250, (2, SEQ_LEN), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, *_, last = roberta(ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(first, last, atol=1e-3, rtol=0)  # a norm of what is normed


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_holes_that_enter_late_look_beside_them(attention: str) -> None:
    """The weights of late layers are what those of the encoder are."""
    config = ModelConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=34, position_init="neighbours",
    )  # fmt: skip
    masking = MaskingConfig(insert_layer=2, late_layers=2, late_attention=attention)  # type: ignore[arg-type]
    model = LateMaskModel(config, masking)
    initialise(model, seed=0)
    expected = model.layers[0].qkv.weight[:64]
    for layer in model.late_layers:
        torch.testing.assert_close(layer.qkv.weight[:64], expected)
        if attention == "cross":
            torch.testing.assert_close(layer.cross_query.weight, expected[:32])
            torch.testing.assert_close(layer.cross_key_value.weight[:32], expected[32:])
            assert not layer.cross_output.weight.any()


def test_rotary_late_layers_look_beside_by_distance_alone() -> None:
    config = ModelConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=34, position_init="neighbours",
        architecture="roberta-prelayernorm",
    )  # fmt: skip
    masking = MaskingConfig(insert_layer=1, late_layers=1, late_positions="rotary")
    model = LateMaskModel(config, masking)
    initialise(model, seed=0)
    layer = model.late_layers[0]
    looked: list[torch.Tensor] = []

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        q, k = (x.unflatten(-1, (4, -1)).transpose(1, 2) for x in (query, key))
        looked.append((q @ k.transpose(-1, -2)).argmax(-1))  # [1, heads, places]
        return value

    layer._attend = attend
    states = torch.randn(1, 32, 64, generator=torch.Generator().manual_seed(0))  # of any places
    places = torch.arange(100, 132)[None]  # beyond the table's end
    layer(states, positions=angles_of(places, 16))
    inner = torch.arange(2, 30)
    favourite = looked[0][0, :, inner] - inner
    assert favourite.tolist() == [[offset] * len(inner) for offset in (-1, 1, -2, 2)]


def test_odd_heads_have_no_pairs_to_turn() -> None:
    with pytest.raises(PretrainError, match="even width"):
        ModelConfig(hidden_size=12, num_attention_heads=4, position_init="neighbours")
