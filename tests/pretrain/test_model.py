"""The encoder against Hugging Face's RoBERTa and a slow reference that keeps every position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import RobertaForMaskedLM, RobertaPreLayerNormForMaskedLM

from pretrain.config import MaskingConfig, ModelConfig
from pretrain.convert import to_hf_config, to_hf_head, to_hf_weights
from pretrain.initialise import initialise
from pretrain.masking import MaskedRows, mask_rows
from pretrain.model import LateMaskModel

SEQ_LEN, VOCAB, MASK = 24, 60, 59


def make_model(norm: str = "post", **masking: object) -> LateMaskModel:
    config = ModelConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=SEQ_LEN + 2,
        norm=norm,  # type: ignore[arg-type]
        initializer_range=None,  # 0.02 would make every effect too small to be seen here
        vocab_size=VOCAB,
    )
    model = LateMaskModel(config, MaskingConfig(**masking))  # type: ignore[arg-type]
    initialise(model, seed=1)
    with torch.no_grad():  # biases and norms away from 0 and 1, or mistakes there would not show
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def make_rows(count: int = 5, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(4, VOCAB - 1, size=(count, SEQ_LEN))
    rows[:, 0], rows[:, -1] = 0, 2
    return rows


def corrupt(model: LateMaskModel, rows: np.ndarray, seed: int = 0) -> MaskedRows:
    return mask_rows(
        rows,
        np.arange(len(rows)),
        masking=model.masking,
        vocab_size=VOCAB,
        seed=seed,
        epoch=0,
    )


def tensors(batch: MaskedRows) -> list[Tensor]:
    return [torch.from_numpy(array) for array in batch]


def in_place(batch: MaskedRows) -> tuple[Tensor, Tensor]:
    """The corrupted rows in reading order with <mask> at the holes, and which are holes."""
    input_ids, positions, _ = tensors(batch)
    holes = positions[:, input_ids.shape[1] :]
    ids = torch.empty_like(positions).scatter(
        1, positions, torch.cat([input_ids, torch.full_like(holes, MASK)], dim=1)
    )
    return ids, torch.zeros_like(ids, dtype=torch.bool).scatter(1, holes, True)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_k0_equals_hugging_face_masked_lm_with_gradients(norm: str) -> None:
    model = make_model(norm, mask_embedding="shared")
    batch = corrupt(model, make_rows())
    kind = RobertaPreLayerNormForMaskedLM if norm == "pre" else RobertaForMaskedLM
    stock = kind(to_hf_config(model.config))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    prefix = f"{stock.base_model_prefix}."
    body = {prefix + n: t.clone() for n, t in to_hf_weights(weights, model.config).items()}
    stock.load_state_dict(body | to_hf_head(weights, model.config))
    stock.eval()

    ids, _ = in_place(batch)
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
    for name, grad in to_hf_weights(grads, model.config).items():  # type: ignore[arg-type]
        if "token_type" in name:
            continue
        their_grad = theirs_by_name[prefix + name].grad
        torch.testing.assert_close(grad, their_grad, atol=2e-4, rtol=1e-4, msg=name)


def slow_reference(model: LateMaskModel, batch: MaskedRows) -> Tensor:
    """methods T2: all positions everywhere; holes are no keys before `insert_layer`, and their
    rows are overwritten when they enter. Post-norm, written out with no code of the model's.
    """
    ids, is_hole = in_place(batch)
    w = dict(model.named_parameters())
    width, heads = model.config.hidden_size, model.config.num_attention_heads

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    places = w["position_embeddings.weight"][2 : 2 + ids.shape[1]]
    x = norm(w["word_embeddings.weight"][ids] + places, "embedding_norm")
    entering = norm(w["mask_embedding"] + places, "embedding_norm").expand_as(x)
    k, depth = model.masking.insert_layer, model.config.num_hidden_layers
    names = [f"layers.{i}" for i in range(depth)]
    names += [f"late_layers.{i}" for i in range(model.masking.late_layers)]
    for index, name in enumerate(names):
        if index == k:
            x = torch.where(is_hole[..., None], entering, x)
        q, key, v = linear(x, f"{name}.qkv").split(width, dim=-1)
        split = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, key, v)]
        scores = split[0] @ split[1].transpose(-1, -2) / (width // heads) ** 0.5
        if index < k:
            scores = scores.masked_fill(is_hole[:, None, None, :], float("-inf"))
        mixed = (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)
        x = norm(x + linear(mixed, f"{name}.attention_output"), f"{name}.attention_norm")
        inner = F.gelu(linear(x, f"{name}.intermediate"))
        x = norm(x + linear(inner, f"{name}.output"), f"{name}.output_norm")
    state = norm(F.gelu(linear(x, "head.dense")), "head.norm")
    return state @ w["word_embeddings.weight"].T + w["head.bias"]


@settings(max_examples=25, deadline=None)
@given(
    insert_layer=st.integers(0, 3),
    late_layers=st.integers(0, 2),
    rate=st.floats(0.1, 0.8),
    masked_share=st.floats(0.2, 1.0),
    seed=st.integers(0, 1000),
)
def test_every_insertion_equals_the_slow_path(
    insert_layer: int, late_layers: int, rate: float, masked_share: float, seed: int
) -> None:
    late_layers = late_layers or int(insert_layer == 3)
    model = make_model(
        insert_layer=insert_layer,
        late_layers=late_layers,
        rate=rate,
        masked_share=masked_share,
        random_share=min(0.1, 1 - masked_share),
    )
    batch = corrupt(model, make_rows(3, seed), seed)
    input_ids, positions, labels = tensors(batch)
    predicted = positions[:, -labels.shape[1] :, None].expand(-1, -1, VOCAB)
    with torch.no_grad():
        fast = model.logits(input_ids, positions, labels.shape[1])
        slow = slow_reference(model, batch).gather(1, predicted)
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-5)


def test_identity_of_a_masked_token_is_invisible() -> None:
    model = make_model(insert_layer=2)
    rows = make_rows()
    batch = corrupt(model, rows)
    changed = rows.copy()
    num_visible = batch.input_ids.shape[1]
    holes = batch.position_ids[:, num_visible:]
    np.put_along_axis(changed, holes, 4 + (np.take_along_axis(rows, holes, 1) + 7) % 50, axis=1)
    assert (changed != rows).any()
    other = corrupt(model, changed)
    # Bit-identical inputs to everything before the loss; only the labels differ.
    np.testing.assert_array_equal(other.input_ids, batch.input_ids)
    np.testing.assert_array_equal(other.position_ids, batch.position_ids)
    assert (other.labels != batch.labels).any()

    visible = batch.position_ids[:, num_visible - 1]
    changed = rows.copy()
    changed[np.arange(len(rows)), visible] = 4 + (rows[np.arange(len(rows)), visible] + 7) % 50
    seen = corrupt(model, changed)
    a, b = (
        model.logits(*tensors(x)[:2], x.labels.shape[1]).detach()  # type: ignore[arg-type]
        for x in (batch, seen)
    )
    assert not torch.equal(a, b)


def test_permuting_visible_tokens_with_their_positions_changes_nothing() -> None:
    model = make_model(insert_layer=2, late_layers=1)
    input_ids, positions, labels = tensors(corrupt(model, make_rows()))
    free = input_ids.shape[1] - (labels.shape[1] - (SEQ_LEN - input_ids.shape[1]))
    order = torch.cat([torch.randperm(free), torch.arange(free, SEQ_LEN)])
    with torch.no_grad():
        expected = model.logits(input_ids, positions, labels.shape[1])
        moved = model.logits(
            input_ids[:, order[: input_ids.shape[1]]], positions[:, order], labels.shape[1]
        )
        alone = model.logits(input_ids[:, order[: input_ids.shape[1]]], positions, labels.shape[1])
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)
    assert (alone - expected).abs().max() > 1e-2


def test_positions_are_the_original_ones() -> None:
    """methods T6: K = {0, 5, 9} uses rows 2, 7 and 11 of the position table."""
    model = make_model()
    ids, places = torch.tensor([[0, 10, 11]]), torch.tensor([[0, 5, 9]])
    rows = model.word_embeddings.weight[ids] + model.position_embeddings.weight[places + 2]
    torch.testing.assert_close(model.embed(ids, places), model.embedding_norm(rows))


def test_mask_row_gets_no_gradient_through_the_input_when_separate() -> None:
    model = make_model(insert_layer=1, mask_embedding="separate")
    input_ids, positions, labels = tensors(corrupt(model, make_rows()))
    assert MASK not in input_ids
    state = model.predicted_states(input_ids, positions, labels.shape[1])
    state.pow(2).mean().backward()
    assert model.word_embeddings.weight.grad[MASK].abs().max() == 0  # type: ignore[index]
    assert model.mask_embedding.grad.abs().max() > 0


@pytest.mark.parametrize(("k", "d"), [(0, 0), (1, 0), (2, 1), (2, 2)])
def test_overfits_a_few_rows(k: int, d: int) -> None:
    """methods T13: the masks' content is learned whatever the insertion layer."""
    model = make_model("pre", insert_layer=k, late_layers=d, rate=0.3)
    model.config.dropout = 0.0
    batch = tensors(corrupt(model, make_rows(8)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(150):
        optimizer.zero_grad()
        output = model(*batch)
        output.loss_sum.div(batch[2].numel()).backward()
        optimizer.step()
    assert output.correct.item() / batch[2].numel() > 0.95
