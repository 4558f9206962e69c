"""The counter against the figures of both papers' reference and torch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pretrain.flops import TRAINING, VANILLA, executed_flops, layer_flops, paper_flops
from pretrain.masking import mask_counts
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig, ModelConfig

BASE = ModelConfig(vocab_size=50265)
LARGE = ModelConfig(
    hidden_size=1024, num_hidden_layers=24, intermediate_size=4096, vocab_size=50265,
    num_attention_heads=16,
)  # fmt: skip


def test_check_values() -> None:
    assert layer_flops(128, 768, 3072) == 1_862_270_976
    for model, seq_len, body, head in (
        (BASE, 128, 22.347, 1.505),
        (LARGE, 128, 78.920, 2.017),
        (BASE, 512, 96.637, 6.020),
        (LARGE, 512, 335.007, 8.067),
    ):
        parts = paper_flops(model, VANILLA, seq_len)
        assert parts["head"] / 1e9 == pytest.approx(head, abs=6e-4)
        assert (sum(parts.values()) - parts["head"]) / 1e9 == pytest.approx(body, abs=6e-4)


@pytest.mark.parametrize(
    ("k_from_end", "d", "rate", "share", "expected"),
    [
        (0, 2, 0.50, 0.8, (0.760, 0.923, 0.678, 0.745)),
        (0, 1, 0.40, 0.8, (0.757, 0.878, 0.717, 0.766)),
        (0, 2, 0.50, 1.0, (0.660, 0.829, 0.578, 0.647)),
        (2, 0, 0.50, 0.8, (0.661, 0.830, 0.629, 0.696)),
        (4, 0, 0.50, 0.8, (0.729, 0.893, 0.663, 0.729)),
    ],
)
def test_ratios_to_vanilla(
    k_from_end: int, d: int, rate: float, share: float, expected: tuple[float, ...]
) -> None:
    found = []
    for model in (BASE, LARGE):
        masking = MaskingConfig(
            rate=rate, masked_share=share, random_share=0.0, late_layers=d,
            insert_layer=model.num_hidden_layers - k_from_end,
        )  # fmt: skip
        found += ratios(model, masking)
    assert found == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("queries", "d", "share", "expected"),
    [
        ("all", 1, 0.8, (0.700, 0.866, 0.648, 0.715)),
        ("all", 2, 0.8, (0.806, 0.966, 0.701, 0.767)),
        ("holes", 2, 0.8, (0.687, 0.854, 0.642, 0.709)),
        ("holes", 2, 1.0, (0.604, 0.776, 0.550, 0.620)),
    ],
)
def test_ratios_of_cross_attention(
    queries: str, d: int, share: float, expected: tuple[float, ...]
) -> None:
    found = []
    for model in (BASE, LARGE):
        masking = MaskingConfig(
            rate=0.5, masked_share=share, random_share=0.0, insert_layer=model.num_hidden_layers,
            late_layers=d, late_attention="cross", cross_queries=queries,  # type: ignore[arg-type]
        )  # fmt: skip
        found += ratios(model, masking)
    assert found == pytest.approx(expected, abs=6e-4)


def ratios(model: ModelConfig, masking: MaskingConfig) -> list[float]:
    """To vanilla 15 % at length 128, without and with the head."""
    ours, base = paper_flops(model, masking, 128), paper_flops(model, VANILLA, 128)
    body = [sum(parts.values()) - parts["head"] for parts in (ours, base)]
    return [body[0] / body[1], sum(ours.values()) / sum(base.values())]


@pytest.mark.parametrize(
    ("k", "d", "more"),
    [
        (0, 0, {}),
        (2, 0, {}),
        (2, 0, {"loss_fraction": 0.5}),
        (3, 2, {}),
        (3, 2, {"late_attention": "cross"}),
        (3, 2, {"late_attention": "cross", "cross_queries": "holes"}),
    ],
)
def test_executed_count_is_what_torch_counts(k: int, d: int, more: dict[str, Any]) -> None:
    model_config = ModelConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=66, vocab_size=300, dropout=0.0,
    )  # fmt: skip
    masking = MaskingConfig(rate=0.5, insert_layer=k, late_layers=d, **more)
    model, counts = LateMaskModel(model_config, masking), mask_counts(masking, 64)
    ids = torch.zeros(2, counts.visible, dtype=torch.long)
    labels = torch.zeros(2, counts.predicted, dtype=torch.long)
    positions = torch.arange(counts.places).expand(2, -1)
    # The fused attention kernel of the CPU is not counted by torch; its plain form is.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        model(ids, positions, labels)
    executed = 2 * sum(executed_flops(model_config, masking, 64).values())
    assert forward.get_total_flops() == pytest.approx(executed, rel=0.01)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as step:
        model(ids, positions, labels).loss_sum.backward()
    assert step.get_total_flops() == pytest.approx(TRAINING * executed, rel=0.01)
