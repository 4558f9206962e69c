"""Initial weights: their size, and what the head can't predict."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pretrain.initialise import initialise
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig, ModelConfig

CONFIG = ModelConfig(
    vocab_size=1000, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=256, max_position_embeddings=130, dropout=0.0,
)  # fmt: skip


def drawn(config: ModelConfig) -> LateMaskModel:
    model = LateMaskModel(config, MaskingConfig(insert_layer=1))
    initialise(model, seed=0)
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


def test_mask_and_padding_are_never_predicted() -> None:
    model = drawn(CONFIG)
    unreachable = (model.head.bias < -1e3).nonzero().flatten().tolist()
    assert unreachable == [999, *range(1000, 1024)]
