"""The encoder against Hugging Face's RoBERTa and a slow reference that keeps every position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import RobertaForMaskedLM, RobertaPreLayerNormForMaskedLM

from pretrain.convert import to_hf_config, to_hf_head, to_hf_weights
from pretrain.initialise import initialise
from pretrain.layers import UNREACHABLE
from pretrain.masking import MaskedRows, mask_rows
from pretrain.model import LateMaskModel, MlmOutput
from pretrain.recipe import MaskingConfig, ModelConfig

SEQ_LEN, VOCAB, MASK = 24, 60, 59


def make_model(norm: str = "post", tied: bool = True, **masking: object) -> LateMaskModel:
    config = ModelConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=SEQ_LEN + 2,
        norm=norm,  # type: ignore[arg-type]
        initializer_range=None,  # 0.02 would make every effect too small to be seen here
        tie_word_embeddings=tied,
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


def in_place(batch: MaskedRows) -> tuple[Tensor, Tensor, Tensor]:
    """[B, SEQ_LEN] the rows in reading order with <mask> at the holes; which places are holes;
    which hold nothing at all.
    """
    input_ids, positions, _ = tensors(batch)
    holes = positions[:, input_ids.shape[1] :]
    ids = torch.zeros(len(positions), SEQ_LEN, dtype=torch.long).scatter(
        1, positions, torch.cat([input_ids, torch.full_like(holes, MASK)], dim=1)
    )
    nowhere = torch.zeros_like(ids, dtype=torch.bool)
    return ids, nowhere.scatter(1, holes, True), ~nowhere.scatter(1, positions, True)


@pytest.mark.parametrize(("norm", "tied"), [("post", True), ("pre", True), ("post", False)])
def test_k0_equals_hugging_face_masked_lm_with_gradients(norm: str, tied: bool) -> None:
    model = make_model(norm, tied, mask_embedding="shared")
    batch = corrupt(model, make_rows())
    kind = RobertaPreLayerNormForMaskedLM if norm == "pre" else RobertaForMaskedLM
    stock = kind(to_hf_config(model.config))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    prefix = f"{stock.base_model_prefix}."
    body = {prefix + n: t.clone() for n, t in to_hf_weights(weights, model.config).items()}
    stock.load_state_dict(body | to_hf_head(weights, model.config))
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
    for name, grad in to_hf_weights(grads, model.config).items():  # type: ignore[arg-type]
        if "token_type" in name:
            continue
        their_grad = theirs_by_name[prefix + name].grad
        torch.testing.assert_close(grad, their_grad, atol=2e-4, rtol=1e-4, msg=name)


def slow_reference(model: LateMaskModel, batch: MaskedRows) -> Tensor:
    """methods T2: all positions everywhere; holes are no keys before `insert_layer`, and their
    rows are overwritten when they enter. Written out with no code of the model's.
    """
    ids, is_hole, is_gone = in_place(batch)
    w = dict(model.named_parameters())
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    pre, masking = model.config.norm == "pre", model.masking

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def turned(x: Tensor) -> Tensor:
        """Each head's halves as real and imaginary parts, times exp(i w p)."""
        half = x.shape[-1] // 2
        w = [1.5 * ((j * (5**0.5 - 1) / 2) % 1) for j in range(1, half + 1)]
        angle = torch.arange(x.shape[-2])[:, None] * torch.tensor(w)
        product = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angle)
        return torch.cat([product.real, product.imag], dim=-1)

    def attention(
        q: Tensor, k: Tensor, v: Tensor, hidden_keys: Tensor, rotary: bool = False
    ) -> Tensor:
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        if rotary:
            q, k = turned(q), turned(k)
        scores = q @ k.transpose(-1, -2) / (width // heads) ** 0.5
        scores = scores.masked_fill(hidden_keys[:, None, None, :], float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    def sublayer(x: Tensor, name: str, compute: Callable[[Tensor], Tensor]) -> Tensor:
        return x + compute(norm(x, name)) if pre else norm(x + compute(x), name)

    def layer(x: Tensor, name: str, hidden_keys: Tensor, memory: Tensor | None = None) -> Tensor:
        def self_attention(x: Tensor) -> Tensor:
            rotary = name.startswith("late") and masking.late_positions == "rotary"
            mixed = attention(*linear(x, f"{name}.qkv").split(width, dim=-1), hidden_keys, rotary)
            return linear(mixed, f"{name}.attention_output")

        def cross_attention(x: Tensor) -> Tensor:
            assert memory is not None
            key, value = linear(memory, f"{name}.cross_key_value").split(width, dim=-1)
            query = linear(x, f"{name}.cross_query")
            return linear(attention(query, key, value, is_hole | is_gone), f"{name}.cross_output")

        def feed_forward(x: Tensor) -> Tensor:
            return linear(F.gelu(linear(x, f"{name}.intermediate")), f"{name}.output")

        x = sublayer(x, f"{name}.attention_norm", self_attention)
        if memory is not None:
            x = sublayer(x, f"{name}.cross_norm", cross_attention)
        return sublayer(x, f"{name}.output_norm", feed_forward)

    places = w["position_embeddings.weight"][2 : 2 + ids.shape[1]]
    x = norm(w["word_embeddings.weight"][ids] + places, "embedding_norm")
    entering = norm(w["mask_embedding"] + places, "embedding_norm").expand_as(x)
    k, depth, d = masking.insert_layer, model.config.num_hidden_layers, masking.late_layers
    for index in range(depth):
        if index == k:
            x = torch.where(is_hole[..., None], entering, x)
        x = layer(x, f"layers.{index}", is_gone | is_hole if index < k else is_gone)
    if pre:
        x = norm(x, "final_norm")
    if d:
        if k == depth:
            x = torch.where(is_hole[..., None], entering, x)
        encoded = x
        cross = masking.late_attention == "cross"
        holes_only = cross and masking.cross_queries == "holes"
        for index in range(d):
            hidden_keys = ~is_hole if holes_only else is_gone
            x = layer(x, f"late_layers.{index}", hidden_keys, encoded if cross else None)
        if pre:
            x = norm(x, "late_norm")
        if holes_only:
            x = torch.where(is_hole[..., None], x, encoded)
    state = norm(F.gelu(linear(x, "head.dense")), "head.norm")
    return (state @ w["word_embeddings.weight"].T + w["head.bias"])[..., :VOCAB]


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(["post", "pre"]),
    insert_layer=st.integers(0, 3),
    late_layers=st.integers(0, 2),
    late_attention=st.sampled_from(["self", "cross"]),
    late_positions=st.sampled_from(["table", "rotary"]),
    cross_queries=st.sampled_from(["all", "holes"]),
    rate=st.floats(0.1, 0.8),
    loss_fraction=st.sampled_from([1.0, 0.6]),
    masked_share=st.floats(0.2, 1.0),
    seed=st.integers(0, 1000),
)
def test_every_insertion_equals_the_slow_path(
    norm: str,
    insert_layer: int,
    late_layers: int,
    late_attention: str,
    late_positions: str,
    cross_queries: str,
    rate: float,
    loss_fraction: float,
    masked_share: float,
    seed: int,
) -> None:
    model = make_model(
        norm,
        insert_layer=insert_layer,
        late_layers=late_layers or int(insert_layer == 3),
        late_attention=late_attention,
        late_positions=late_positions if late_attention == "self" else "table",
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
        slow = slow_reference(model, batch).gather(1, predicted)
    torch.testing.assert_close(fast, slow, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 2])
def test_gradients_of_restricted_layers_equal_those_of_the_full_computation(k: int) -> None:
    model = make_model("pre", insert_layer=k, late_layers=1, rate=0.4, loss_fraction=0.7)
    batch = corrupt(model, make_rows())
    input_ids, positions, labels = tensors(batch)
    model(input_ids, positions, labels).loss_sum.backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    predicted = positions[:, -labels.shape[1] :, None].expand(-1, -1, VOCAB)
    slow = slow_reference(model, batch).gather(1, predicted)
    F.cross_entropy(slow.flatten(0, 1), labels.flatten(), reduction="sum").backward()
    for name, parameter in model.named_parameters():
        scale = fast[name].abs().max().item() + 1e-6
        torch.testing.assert_close(
            fast[name], parameter.grad, atol=1e-4 * scale, rtol=1e-4, msg=name
        )


def test_a_silent_cross_attention_leaves_a_self_attention_layer() -> None:
    """methods T8."""
    model = make_model("pre", insert_layer=3, late_layers=2, late_attention="cross")
    plain = make_model("pre", insert_layer=3, late_layers=2)
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


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_compiled_step_is_one_graph_and_computes_what_eager_does(norm: str) -> None:
    """methods T14: fixed counts, so that later batches don't compile again."""
    model = make_model(norm, insert_layer=2, late_layers=1, loss_fraction=0.8)
    batches = [tensors(corrupt(model, make_rows(seed=seed), seed)) for seed in range(4)]

    def step(run: Callable[..., MlmOutput], batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        model.zero_grad()
        output = run(*batch)
        output.loss_sum.backward()
        return output.loss_sum.detach(), model.layers[0].qkv.weight.grad.clone()

    eager = [step(model, batch) for batch in batches]
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch, expected in zip(batches, eager, strict=True):
            torch.testing.assert_close(step(compiled, batch), expected, atol=1e-4, rtol=1e-4)


def test_bf16_stays_near_fp32() -> None:
    """Within 5 % of the largest logit: bf16 keeps 8 bits, and four layers add their roundings."""
    model = make_model("pre", insert_layer=2)
    input_ids, positions, labels = tensors(corrupt(model, make_rows()))
    with torch.no_grad():
        exact = model.logits(input_ids, positions, labels.shape[1])
        rough = model.bfloat16().logits(input_ids, positions, labels.shape[1]).float()
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()


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


@pytest.mark.parametrize(
    ("k", "d", "late_attention"),
    [(0, 0, "self"), (1, 0, "self"), (2, 1, "self"), (3, 2, "self"), (3, 2, "cross")],
)
def test_overfits_a_few_rows(k: int, d: int, late_attention: str) -> None:
    """methods T13: the masks' content is learned whatever the insertion layer."""
    model = make_model(
        "pre", insert_layer=k, late_layers=d, late_attention=late_attention, rate=0.3
    )
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
