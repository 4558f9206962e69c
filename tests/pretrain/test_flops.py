"""The counter against the figures of both papers' reference and torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pretrain.config import MaskingConfig, ModelConfig
from pretrain.flops import VANILLA, executed_flops, layer_flops, paper_flops
from pretrain.masking import mask_counts
from pretrain.model import LateMaskModel

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
        ours, base = paper_flops(model, masking, 128), paper_flops(model, VANILLA, 128)
        body = (sum(p.values()) - p["head"] for p in (ours, base))
        found += [next(body) / next(body), sum(ours.values()) / sum(base.values())]
    assert found == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("k", "d"), [(0, 0), (2, 0), (3, 2)])
def test_executed_count_is_what_torch_counts(k: int, d: int) -> None:
    model_config = ModelConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=66, vocab_size=300, dropout=0.0,
    )  # fmt: skip
    masking = MaskingConfig(rate=0.5, insert_layer=k, late_layers=d)
    model, counts = LateMaskModel(model_config, masking), mask_counts(masking, 64)
    ids = torch.zeros(2, counts.visible, dtype=torch.long)
    labels = torch.zeros(2, counts.predicted, dtype=torch.long)
    # The fused attention kernel of the CPU is not counted by torch; its plain form is.
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        model(ids, torch.arange(64).expand(2, -1), labels)
    expected = 2 * sum(executed_flops(model_config, masking, 64).values())
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)
