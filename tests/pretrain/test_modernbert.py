"""ModernBERT with [MASK]s that enter late: windows, positions, the factor, initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor
from transformers import ModernBertModel

from pretrain.architectures import architecture_of
from pretrain.config import PretrainConfig
from pretrain.errors import PretrainError
from pretrain.initialise import initialise
from pretrain.masking import MaskedBatch
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig, ModelConfig
from tests.pretrain.slow_modernbert import slow_logits
from tests.pretrain.small_model import SEQ_LEN, VOCAB, assert_one_graph, corrupt, make_rows, tensors

LAYERS = 4


def make_model(masking: dict[str, Any], **changes: Any) -> LateMaskModel:
    """Windows of 4 positions to each side in sequences of 24; all weights matter."""
    config = ModelConfig(
        architecture="modernbert", hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=SEQ_LEN, local_attention=8,
        initializer_range=None, vocab_size=VOCAB,
    )  # fmt: skip
    model = LateMaskModel(replace(config, **changes), MaskingConfig(**masking))
    initialise(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
        if masking.get("insert_layer"):
            model.mask_scale.copy_(torch.linspace(0.5, 2.0, len(model.mask_scale)))
    return model.eval()


def at_predicted(logits: Tensor, batch: MaskedBatch) -> Tensor:
    predicted = torch.from_numpy(batch.position_ids[:, -batch.labels.shape[1] :])
    return logits.gather(1, predicted[..., None].expand(-1, -1, VOCAB))


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize(
    ("k", "d"), [(0, 0), (0, 1), (1, 0), (2, 2), (LAYERS - 1, 0), (LAYERS, 1), (LAYERS, 2)]
)
def test_every_insertion_equals_the_slow_path(k: int, d: int, every: int) -> None:
    masking = {"insert_layer": k, "late_layers": d, "rate": 0.5, "loss_fraction": 0.7}
    model = make_model(masking, global_attn_every_n_layers=every)
    batch = corrupt(model, make_rows(3))
    assert (batch.position_ids[:, 1:] < batch.position_ids[:, :-1]).any()  # not in reading order
    input_ids, positions, labels = tensors(batch)
    slow = at_predicted(slow_logits(model, batch), batch)
    fast = model.logits(input_ids, positions, labels.shape[1])
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-5)

    # Gradients, too: through masked attention, the factor and the skipped queries.
    model(input_ids, positions, labels).loss_sum.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == dict(model.named_parameters()).keys()
    model.zero_grad()
    F.cross_entropy(slow.flatten(0, 1), labels.flatten(), reduction="sum").backward()
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        scale = expected.abs().max().item() + 1e-6
        torch.testing.assert_close(found[name], expected, atol=1e-4 * scale, rtol=1e-4, msg=name)


def test_windows_change_the_answer_and_are_left_out_where_they_hold_everything() -> None:
    masking = {"insert_layer": 2, "rate": 0.4}
    model = make_model(masking)
    input_ids, positions, labels = tensors(corrupt(model, make_rows()))
    with torch.no_grad():
        narrow = model.logits(input_ids, positions, labels.shape[1])
        model.config = replace(model.config, local_attention=2 * SEQ_LEN)
        masked = model.logits(input_ids, positions, labels.shape[1])
        model.sequence_length = SEQ_LEN
        unmasked = model.logits(input_ids, positions, labels.shape[1])
    assert (narrow - masked).abs().max() > 1e-3
    torch.testing.assert_close(unmasked, masked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("every", "window", "length", "built"),
    [
        (3, 8, None, True),
        (3, 8, 24, True),
        (3, 2 * 23, 24, False),
        (3, 2 * 23 - 1, 24, True),
        (3, 2 * 23, None, True),
        (1, 8, None, False),
    ],
)
def test_a_mask_is_built_only_where_a_window_hides_something(
    every: int, window: int, length: int | None, built: bool
) -> None:
    config = ModelConfig(
        architecture="modernbert", global_attn_every_n_layers=every, local_attention=window
    )
    positions = torch.arange(24).flip(0)[None]
    found = architecture_of(config).attention_positions(config, positions, length)
    assert (found.window is not None) == built
    if built:
        assert found.window[0, 0, 0].tolist() == [abs(i) <= window // 2 for i in range(24)]


def test_early_layers_are_the_stock_model_on_the_visible_tokens_at_their_positions() -> None:
    """Stock windows go by index, so that this holds for full layers only."""
    model = make_model({"insert_layer": LAYERS, "late_layers": 1}, global_attn_every_n_layers=1)
    architecture = architecture_of(model.config)
    stock = ModernBertModel(architecture.to_stock_config(model.config)).eval()
    weights = architecture.to_stock_weights(dict(model.named_parameters()), model.config)
    stock.load_state_dict(weights)
    input_ids, positions, _ = tensors(corrupt(model, make_rows()))
    visible = positions[:, : input_ids.shape[1]]
    seen: list[Tensor] = []
    model.final_norm.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        model.predicted_states(input_ids, positions, 3)
        expected = stock(input_ids, position_ids=visible).last_hidden_state
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)


def test_the_factor_scales_masks_that_enter_late_and_no_others() -> None:
    positions = torch.arange(5)[None]
    for k in (0, 1):
        model = make_model({"insert_layer": k})
        with torch.no_grad():
            model.mask_scale.fill_(3.0)
            masks = model.embed_masks(positions)
            plain = model.embedding_norm(model.mask_embedding).expand(1, 5, -1)
        torch.testing.assert_close(masks, 3.0 * plain if k else plain)
    fresh = LateMaskModel(model.config, model.masking)
    initialise(fresh, seed=0)
    assert (fresh.mask_scale == 1).all()


def test_the_compiled_step_is_one_graph_and_computes_what_eager_does() -> None:
    model = make_model({"insert_layer": 2, "late_layers": 1, "loss_fraction": 0.8})
    model.sequence_length = SEQ_LEN
    batches = [tensors(corrupt(model, make_rows(seed=seed), seed)) for seed in range(3)]
    assert_one_graph(model, batches)


def test_bf16_stays_near_fp32() -> None:
    """Within 5 % of the largest logit: bf16 keeps 8 bits, and layers add their roundings."""
    model = make_model({"insert_layer": 2})
    input_ids, positions, labels = tensors(corrupt(model, make_rows()))
    with torch.no_grad():
        exact = model.logits(input_ids, positions, labels.shape[1])
        rough = model.bfloat16().logits(input_ids, positions, labels.shape[1]).float()
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("initializer_range", [0.02, None])
def test_initial_weights_are_truncated_and_outputs_are_smaller(
    initializer_range: float | None,
) -> None:
    config = ModelConfig(
        architecture="modernbert", hidden_size=128, num_hidden_layers=8, num_attention_heads=4,
        intermediate_size=192, initializer_range=initializer_range, vocab_size=512,
    )  # fmt: skip
    model = LateMaskModel(config, MaskingConfig(insert_layer=4, late_layers=1))
    initialise(model, seed=0)
    shrunk = 0.8796  # standard deviation of a normal distribution cut off at 2
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        if initializer_range is None:
            base = 0.5 / math.sqrt(128) if "word" in name else 1 / math.sqrt(parameter.shape[1])
        else:
            base = initializer_range
        is_output = name.endswith((".output.weight", "attention_output.weight", "dense.weight"))
        std = base / math.sqrt(2 * 8) if is_output else base
        assert parameter.abs().max() <= 2 * std * 1.0001, name
        assert parameter.std().item() == pytest.approx(shrunk * std, rel=0.03), name
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == 1).all(), name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--masking.late_attention", "cross"], r"masking\.late_attention is cross.*to self"),
        (["--model.global_attn_every_n_layers", "0"], r"global_attn_every_n_layers is 0; 1 or"),
        (["--model.local_attention", "0"], r"model\.local_attention is 0; 1 or more"),
        (["--model.global_rope_theta", "-1"], r"global_rope_theta is -1\.0; it must be positive"),
        (
            ["--model.hidden_size", "6"],
            r"model\.hidden_size = 6 over model\.num_attention_heads = 2 must be even",
        ),
        (
            ["--model.architecture", "bert", "--model.local_attention", "64"],
            r"model\.local_attention is 64, which bert doesn't have.*architecture to modernbert",
        ),
        (["--model.architecture", "albert"], "architecture"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tiny_config: Callable[..., PretrainConfig], overrides: list[str], message: str
) -> None:
    modernbert = ["--model.architecture", "modernbert"]
    tiny_config(*modernbert)
    with pytest.raises(PretrainError, match=f"(?s){message}"):
        tiny_config(*modernbert, *overrides)
