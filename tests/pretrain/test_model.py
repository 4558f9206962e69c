"""BERT's family against Hugging Face's RoBERTa and a slow model that keeps every position."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RobertaForMaskedLM, RobertaPreLayerNormForMaskedLM

from pretrain.architectures import architecture_of
from pretrain.layers import UNREACHABLE
from tests.pretrain.slow_model import slow_logits
from tests.pretrain.small_model import (
    VOCAB,
    assert_one_graph,
    corrupt,
    in_place,
    make_model,
    make_rows,
    tensors,
)


@pytest.mark.parametrize(
    ("name", "tied"), [("roberta", True), ("roberta-prelayernorm", True), ("roberta", False)]
)
def test_k0_equals_hugging_face_masked_lm_with_gradients(name: str, tied: bool) -> None:
    model = make_model(name, tied, mask_embedding="shared")
    batch = corrupt(model, make_rows())
    architecture = architecture_of(model.config)
    kind = RobertaForMaskedLM if name == "roberta" else RobertaPreLayerNormForMaskedLM
    stock = kind(architecture.to_stock_config(model.config))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    prefix = f"{stock.base_model_prefix}."
    body = {prefix + n: t for n, t in architecture.to_stock_weights(weights, model.config).items()}
    stock.load_state_dict(body | architecture.to_stock_head(weights, model.config))
    stock.eval()

    ids, _, _ = in_place(batch)
    input_ids, positions, labels = tensors(batch)
    predicted = positions[:, -labels.shape[1] :]
    theirs = stock(ids).logits.gather(1, predicted[..., None].expand(-1, -1, VOCAB))
    ours = model.logits(input_ids, positions, labels.shape[1])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    output = model(input_ids, positions, labels)
    their_loss = F.cross_entropy(theirs.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(output.loss_sum, their_loss, atol=1e-3, rtol=1e-6)
    output.loss_sum.backward()
    their_loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    theirs_by_name = dict(stock.named_parameters())
    for name, grad in architecture.to_stock_weights(grads, model.config).items():  # type: ignore[arg-type]
        if "token_type" in name:
            continue
        their_grad = theirs_by_name[prefix + name].grad
        torch.testing.assert_close(grad, their_grad, atol=2e-4, rtol=1e-4, msg=name)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["roberta", "roberta-prelayernorm", "bert"]),
    insert_layer=st.integers(0, 3),
    late_layers=st.integers(0, 2),
    late_attention=st.sampled_from(["self", "cross"]),
    cross_queries=st.sampled_from(["all", "masked"]),
    rate=st.floats(0.1, 0.8),
    loss_fraction=st.sampled_from([1.0, 0.6]),
    masked_share=st.floats(0.2, 1.0),
    seed=st.integers(0, 1000),
)
def test_every_insertion_equals_the_slow_path(
    name: str,
    insert_layer: int,
    late_layers: int,
    late_attention: str,
    cross_queries: str,
    rate: float,
    loss_fraction: float,
    masked_share: float,
    seed: int,
) -> None:
    model = make_model(
        name,
        insert_layer=insert_layer,
        late_layers=late_layers or int(insert_layer == 3),
        late_attention=late_attention,
        cross_queries=cross_queries,
        rate=rate,
        loss_fraction=loss_fraction,
        masked_share=masked_share,
        random_share=min(0.1, 1 - masked_share),
    )
    batch = corrupt(model, make_rows(3, seed), seed)
    input_ids, positions, labels = tensors(batch)
    predicted = positions[:, -labels.shape[1] :, None].expand(-1, -1, VOCAB)
    with torch.no_grad():
        fast = model.logits(input_ids, positions, labels.shape[1])
        slow = slow_logits(model, batch).gather(1, predicted)
    torch.testing.assert_close(fast, slow, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 2])
def test_gradients_of_restricted_layers_equal_those_of_the_full_computation(k: int) -> None:
    model = make_model(
        "roberta-prelayernorm", insert_layer=k, late_layers=1, rate=0.4, loss_fraction=0.7
    )
    batch = corrupt(model, make_rows())
    input_ids, positions, labels = tensors(batch)
    model(input_ids, positions, labels).loss_sum.backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    predicted = positions[:, -labels.shape[1] :, None].expand(-1, -1, VOCAB)
    slow = slow_logits(model, batch).gather(1, predicted)
    F.cross_entropy(slow.flatten(0, 1), labels.flatten(), reduction="sum").backward()
    for name, parameter in model.named_parameters():
        scale = fast[name].abs().max().item() + 1e-6
        torch.testing.assert_close(
            fast[name], parameter.grad, atol=1e-4 * scale, rtol=1e-4, msg=name
        )


def test_a_silent_cross_attention_leaves_a_self_attention_layer() -> None:
    model = make_model(
        "roberta-prelayernorm", insert_layer=3, late_layers=2, late_attention="cross"
    )
    plain = make_model("roberta-prelayernorm", insert_layer=3, late_layers=2)
    for layer in model.late_layers:
        layer.cross_output.weight.data.zero_()
        layer.cross_output.bias.data.zero_()
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = tensors(corrupt(model, make_rows()))
    with torch.no_grad():
        torch.testing.assert_close(model(*batch).loss_sum, plain(*batch).loss_sum)


def test_the_vocabularys_padding_has_no_probability_and_no_gradient() -> None:
    model = make_model(rate=0.5)
    with torch.no_grad():
        model.head.bias[VOCAB:] = UNREACHABLE  # make_model has moved it
        model.word_embeddings.weight[VOCAB:] = torch.randn(64 - VOCAB, 32)
    input_ids, positions, labels = tensors(corrupt(model, make_rows()))
    output = model(input_ids, positions, labels)
    logits = model.logits(input_ids, positions, labels.shape[1])
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(output.loss_sum, expected)
    output.loss_sum.backward()
    assert model.word_embeddings.weight.shape[0] == 64
    assert model.word_embeddings.weight.grad[VOCAB:].abs().max() == 0  # type: ignore[index]
    assert model.head.bias.grad[VOCAB:].abs().max() == 0  # type: ignore[index]


@pytest.mark.long  # tests/pretrain/test_modernbert.py has a quick one
@pytest.mark.parametrize("name", ["roberta", "roberta-prelayernorm", "bert"])
def test_the_compiled_step_is_one_graph_and_computes_what_eager_does(name: str) -> None:
    """Fixed counts, so that later batches don't compile again, many special tokens or few."""
    model = make_model(name, insert_layer=2, late_layers=1, loss_fraction=0.8)
    batches = []
    for seed in range(4):
        sequences = make_rows(seed=seed)
        sequences[0, 1 : 1 + 7 * seed] = 2
        masked = corrupt(model, sequences, seed)
        assert masked.num_predicted < masked.labels.size or seed < 2
        batches.append(tensors(masked))
    assert_one_graph(model, batches)


def test_bf16_stays_near_fp32() -> None:
    """Within 5 % of the largest logit: bf16 keeps 8 bits, and four layers add their roundings."""
    model = make_model("roberta-prelayernorm", insert_layer=2)
    input_ids, positions, labels = tensors(corrupt(model, make_rows()))
    with torch.no_grad():
        exact = model.logits(input_ids, positions, labels.shape[1])
        rough = model.bfloat16().logits(input_ids, positions, labels.shape[1]).float()
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()
