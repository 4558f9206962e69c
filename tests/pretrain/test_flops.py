"""The counter against the figures of both papers' reference and torch's own counter."""

from __future__ import annotations

from dataclasses import replace
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
        ("masked", 2, 0.8, (0.687, 0.854, 0.642, 0.709)),
        ("masked", 2, 1.0, (0.604, 0.776, 0.550, 0.620)),
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


def test_check_values_of_modernbert() -> None:
    """base and large at 512 and 128 tokens by hand: 8 h^2 + 6 h i + 4 T h a token and layer."""
    base = ModelConfig(
        architecture="modernbert", num_hidden_layers=22, intermediate_size=1152, vocab_size=50368,
    )  # fmt: skip
    large = replace(
        base, hidden_size=1024, num_hidden_layers=28, num_attention_heads=16,
        intermediate_size=2624,
    )  # fmt: skip
    for model, seq_len, layer in (
        (base, 512, 8 * 768**2 + 6 * 768 * 1152 + 4 * 512 * 768),
        (large, 128, 8 * 1024**2 + 6 * 1024 * 2624 + 4 * 128 * 1024),
    ):
        parts = paper_flops(model, VANILLA, seq_len)
        body = sum(parts.values()) - parts["head"]
        assert body == model.num_hidden_layers * seq_len * layer


@pytest.mark.parametrize(
    ("size", "k", "share", "expected"),
    [
        ("base", 16, 1.0, {128: 0.726, 512: 0.701, 1024: 0.674}),
        ("base", 16, 0.6, {128: 0.613, 512: 0.589, 1024: 0.563}),
        ("large", 21, 1.0, {128: 0.666, 512: 0.653, 1024: 0.638}),
    ],
)
def test_ratios_to_modernberts_own_recipe(
    size: str, k: int, share: float, expected: dict[int, float]
) -> None:
    """Half of the tokens as [MASK]s after `k` layers, against 30 % and 80/10/10 from the start."""
    shape: dict[str, Any] = {"num_hidden_layers": 22, "intermediate_size": 1152}
    if size == "large":
        shape = {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
                 "intermediate_size": 2624}  # fmt: skip
    model = ModelConfig(architecture="modernbert", vocab_size=50368, **shape)
    ours = MaskingConfig(
        rate=0.5, insert_layer=k, masked_share=1.0, random_share=0.0, loss_fraction=share
    )
    theirs = MaskingConfig(rate=0.3)
    for seq_len, ratio in expected.items():
        found = [sum(executed_flops(model, m, seq_len).values()) for m in (ours, theirs)]
        assert found[0] / found[1] == pytest.approx(ratio, abs=6e-3), seq_len


SELF_ATTENTION: list[tuple[int, int, dict[str, Any]]] = [
    (0, 0, {}),
    (2, 0, {}),
    (2, 0, {"loss_fraction": 0.5}),
    (3, 2, {}),
]
CROSS_ATTENTION: list[tuple[int, int, dict[str, Any]]] = [
    (3, 2, {"late_attention": "cross"}),
    (3, 2, {"late_attention": "cross", "cross_queries": "masked"}),
]


@pytest.mark.parametrize(
    ("k", "d", "more", "name"),
    [
        *((*case, name) for name in ("roberta", "bert", "modernbert") for case in SELF_ATTENTION),
        *((*case, "roberta") for case in CROSS_ATTENTION),
    ],
)
def test_executed_count_is_what_torch_counts(
    k: int, d: int, more: dict[str, Any], name: str
) -> None:
    model_config = ModelConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=66, vocab_size=300, dropout=0.0,
        architecture=name,  # type: ignore[arg-type]
    )  # fmt: skip
    masking = MaskingConfig(rate=0.5, insert_layer=k, late_layers=d, **more)
    model, counts = LateMaskModel(model_config, masking), mask_counts(masking, 64)
    ids = torch.zeros(2, counts.visible, dtype=torch.long)
    labels = torch.zeros(2, counts.predicted, dtype=torch.long)
    positions = torch.arange(counts.positions).expand(2, -1)
    # The fused attention kernel of the CPU is not counted by torch; its plain form is.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        model(ids, positions, labels)
    executed = 2 * sum(executed_flops(model_config, masking, 64).values())
    assert forward.get_total_flops() == pytest.approx(executed, rel=0.01)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as step:
        model(ids, positions, labels).loss_sum.backward()
    assert step.get_total_flops() == pytest.approx(TRAINING * executed, rel=0.01)
