"""Every architecture against stock transformers: import, export, and both one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, BertForPreTraining, ModernBertConfig

from pretrain.architectures import architecture_of, architecture_of_stock
from pretrain.architectures.base import Architecture
from pretrain.errors import PretrainError
from pretrain.export import load
from pretrain.initialise import initialise
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig, ModelConfig
from tests.pretrain.stock_models import MASK, SHAPES, VOCAB, make_stock

LENGTH = 40
FULL, SLIDING = "full_attention", "sliding_attention"


def draw_ids(count: int = 3) -> Tensor:
    return torch.randint(4, VOCAB - 1, (count, LENGTH), generator=torch.Generator().manual_seed(1))


def our_logits(model: LateMaskModel, ids: Tensor) -> Tensor:
    """[B, T, V] in reading order, of sequences with [MASK]s at the same positions."""
    is_mask = ids[0] == MASK
    order = torch.cat([(~is_mask).nonzero()[:, 0], is_mask.nonzero()[:, 0]])
    visible = ids[:, ~is_mask]
    return model.logits(visible, order.expand(len(ids), -1), LENGTH)[:, order.argsort()]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_imported_model_computes_what_the_stock_model_does(shape: str, tmp_path: Path) -> None:
    stock: Any = make_stock(shape)
    stock.save_pretrained(tmp_path)
    ours, ids = load(tmp_path).eval(), draw_ids()
    assert ours.config.architecture == SHAPES[shape][0]
    masked = ids.clone()
    masked[:, [3, 11, 12, 30]] = MASK
    with torch.no_grad():
        states = stock.base_model(ids).last_hidden_state
        torch.testing.assert_close(ours.encode(ids), states, atol=1e-5, rtol=1e-5)
        expected = stock(masked).logits
        for length in (None, LENGTH):
            ours.sequence_length = length
            torch.testing.assert_close(our_logits(ours, masked), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_import_and_export_give_back_the_same_tensors(shape: str, tmp_path: Path) -> None:
    stock: Any = make_stock(shape)
    stock.save_pretrained(tmp_path)
    ours = load(tmp_path)
    architecture, weights = architecture_of(ours.config), dict(ours.named_parameters())
    source = stock.state_dict()
    found = {architecture.prefix + n: t for n, t in
             architecture.to_stock_weights(weights, ours.config).items()}  # fmt: skip
    found |= architecture.to_stock_head(weights, ours.config)
    assert found.keys() == source.keys()
    for name, tensor in found.items():
        if name in architecture.head_bias[1:] and not ours.config.tie_word_embeddings:
            continue  # the stock model never reads this one
        assert torch.equal(tensor, source[name]), name
    again = architecture.from_stock_config(architecture.to_stock_config(ours.config))
    assert again == ours.config
    # The weights of our model are the source's, and a second import gives the same model.
    twice = architecture.from_stock_weights(found, ours.config)
    for name, tensor in twice.items():
        assert torch.equal(tensor, weights[name]), name
    assert twice.keys() | {"mask_scale"} == weights.keys() | {"mask_scale"}


@pytest.mark.parametrize("name", ["roberta", "roberta-prelayernorm", "bert", "modernbert"])
def test_an_exported_model_computes_what_ours_does(name: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {"local_attention": 8} if name == "modernbert" else {}
    config = ModelConfig(
        architecture=name,  # type: ignore[arg-type]
        hidden_size=32, num_hidden_layers=5, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=50, initializer_range=None, vocab_size=VOCAB, **more,
    )  # fmt: skip
    ours = LateMaskModel(config, MaskingConfig(mask_embedding="shared")).eval()
    initialise(ours, seed=1)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
        ours.word_embeddings.weight[VOCAB:] = 0
    architecture = architecture_of(config)
    stock = architecture.make_stock_masked_lm(architecture.to_stock_config(config)).eval()
    weights = dict(ours.named_parameters())
    body = architecture.to_stock_weights(weights, config)
    stock.load_state_dict(
        {architecture.prefix + n: t for n, t in body.items()}
        | architecture.to_stock_head(weights, config)
    )
    encoder = architecture.make_stock_encoder(architecture.to_stock_config(config)).eval()
    encoder.load_state_dict(body)
    ids = draw_ids()
    masked = ids.clone()
    masked[:, [5, 6, 31]] = MASK
    with torch.no_grad():
        states = encoder(ids).last_hidden_state
        torch.testing.assert_close(ours.encode(ids), states, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            our_logits(ours, masked), stock(masked).logits, atol=1e-5, rtol=1e-5
        )


def test_the_second_token_type_of_bert_is_kept(tmp_path: Path) -> None:
    stock: Any = make_stock("bert")
    stock.save_pretrained(tmp_path)
    ours = load(tmp_path)
    types = ours.get_parameter("token_type_embeddings.weight")
    assert torch.equal(types, stock.bert.embeddings.token_type_embeddings.weight)
    ids = draw_ids(1)
    ours(ids[:, :30], torch.arange(LENGTH)[None], ids[:, 30:]).loss_sum.backward()
    gradient = types.grad
    assert gradient is not None
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0


def test_a_bert_with_both_heads_and_norms_of_the_first_release_is_read(tmp_path: Path) -> None:
    source = make_stock("bert")
    stock = BertForPreTraining(source.config).eval()
    stock.bert.load_state_dict(source.base_model.state_dict(), strict=False)
    stock.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    former = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(file).items()
    }
    assert "cls.seq_relationship.weight" in former
    save_file(former, file, metadata={"format": "pt"})
    ids = draw_ids()
    with torch.no_grad():
        expected = stock(ids).prediction_logits
        torch.testing.assert_close(
            our_logits(load(tmp_path).eval(), ids), expected, atol=1e-5, rtol=1e-5
        )


def test_the_config_of_modernbert_is_for_transformers_4_and_5(tmp_path: Path) -> None:
    config = ModelConfig(
        architecture="modernbert", global_attn_every_n_layers=2, num_hidden_layers=5,
        global_rope_theta=1e5, local_rope_theta=1e3, vocab_size=90, local_attention=64,
    )  # fmt: skip
    architecture_of(config).to_stock_config(config).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    v4 = {"global_attn_every_n_layers": 2, "global_rope_theta": 1e5, "local_rope_theta": 1e3}
    assert {key: content[key] for key in v4} == v4
    assert content["layer_types"] == [FULL, SLIDING, FULL, SLIDING, FULL]
    thetas = {kind: content["rope_parameters"][kind]["rope_theta"] for kind in (FULL, SLIDING)}
    assert thetas == {FULL: 1e5, SLIDING: 1e3}
    ids = {"bos": 0, "cls": 0, "pad": 1, "eos": 2, "sep": 2}
    assert {key: content[f"{key}_token_id"] for key in ids} == ids
    # What transformers 4 reads is enough.
    for key in ("layer_types", "rope_parameters"):
        del content[key]
    (tmp_path / "config.json").write_text(json.dumps(content))
    stock = AutoConfig.from_pretrained(tmp_path)
    found = architecture_of(config).from_stock_config(stock)
    for key in ("global_attn_every_n_layers", *v4, "local_attention"):
        assert getattr(found, key) == getattr(config, key), key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": [SLIDING, FULL]}, r"layers \[1\] of 2 have full"),
        (
            {"num_hidden_layers": 5, "layer_types": [FULL, FULL, SLIDING, SLIDING, SLIDING]},
            r"layers \[0, 1\] of 5 have full attention can't be read; every n-th",
        ),
        ({"mlp_bias": True}, "mlp_bias = True can't be read; False can"),
        ({"hidden_activation": "relu"}, "hidden_activation = 'relu'"),
        ({"decoder_bias": False}, "decoder_bias = False"),
        (
            {"rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}},
            "rope_type = 'linear' can't be read",
        ),
    ],
)  # fmt: skip
def test_other_variants_of_modernbert_are_refused(changes: dict[str, Any], message: str) -> None:
    config = ModernBertConfig(**{"num_hidden_layers": 2, **changes})
    with pytest.raises(PretrainError, match=message):
        architecture_of_stock("modernbert").from_stock_config(config)


def test_unknown_encoders_and_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(PretrainError, match=r"model_type is 'gpt2'; .*roberta, .*modernbert"):
        architecture_of_stock("gpt2")
    architecture: Architecture = architecture_of_stock("bert")
    config = ModelConfig(architecture="bert", vocab_size=VOCAB, num_hidden_layers=1)
    with pytest.raises(PretrainError, match=r"not the weights of a bert: embeddings\.word_emb"):
        architecture.from_stock_weights({"x": torch.zeros(1)}, config)
