"""Initial weights: their size, and a head that starts at the token frequencies."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pretrain.initialise import initialise
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig, ModelConfig

CONFIG = ModelConfig(
    vocab_size=1000, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=256, max_position_embeddings=130, dropout=0.0,
)  # fmt: skip


def drawn(config: ModelConfig, log_frequencies: torch.Tensor | None = None) -> LateMaskModel:
    model = LateMaskModel(config, MaskingConfig(insert_layer=1))
    initialise(model, seed=0, log_frequencies=log_frequencies)
    return model.eval()


@pytest.mark.parametrize("architecture", ["roberta", "roberta-prelayernorm", "bert"])
@pytest.mark.parametrize("initializer_range", [0.02, None])
def test_weights_have_the_standard_deviation_that_is_asked_for(
    architecture: str, initializer_range: float | None
) -> None:
    config = replace(CONFIG, architecture=architecture, initializer_range=initializer_range)  # type: ignore[arg-type]
    model = drawn(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and name != "head.bias":
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif name == "token_type_embeddings.weight" and len(parameter) == 1:
            assert not parameter.any()  # every token adds it
        elif parameter.ndim == 2:
            inside = name.startswith(("layers.", "head."))
            by_width = parameter.shape[1] ** -0.5 if inside else 0.5 * 64**-0.5
            values = parameter[: config.vocab_size] if "word_emb" in name else parameter
            # A table of 2 x 64 numbers has a standard deviation to 1 part in 16.
            tolerance = 4 / math.sqrt(2 * values.numel()) + 0.01
            expected = initializer_range or by_width
            assert values.std().item() == pytest.approx(expected, rel=tolerance), name


def test_the_first_predictions_are_the_token_frequencies() -> None:
    frequencies = torch.arange(1, 1001, dtype=torch.float64)
    frequencies[-1] = 0  # <mask>
    frequencies /= frequencies.sum()
    model = drawn(replace(CONFIG, unigram_bias=True), frequencies.clamp_min(1e-9).log().float())
    ids = torch.randint(4, 999, (4, 64), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(128).expand(4, -1)
    with torch.no_grad():
        predicted = model.logits(ids, positions, 64).double().log_softmax(-1)
    divergence = (torch.xlogy(frequencies, frequencies) - frequencies * predicted).sum(-1)  # nats
    uniform = math.log(1000) + torch.xlogy(frequencies, frequencies).sum().item()
    assert divergence.max() < 0.1 * uniform
