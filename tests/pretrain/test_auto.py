"""The registered masked LM against the model's own insertion and stock transformers' pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline
from transformers.utils import logging as hf_logging

from pretrain.auto import LateMaskConfig, LateMaskForMaskedLM
from pretrain.errors import PretrainError
from pretrain.model import LateMaskModel

RECIPES = (
    ("--masking.insert_layer", "1"),
    ("--masking.insert_layer", "2", "--masking.late_layers", "1"),
    ("--masking.insert_layer", "2", "--masking.late_layers", "1",
     "--masking.late_attention", "cross", "--masking.cross_queries", "masked"),
    ("--model.architecture", "bert", "--masking.insert_layer", "1"),
    ("--model.architecture", "modernbert",
     "--model.local_attention", "4", "--masking.insert_layer", "1", "--masking.late_layers", "1"),
)  # fmt: skip


@pytest.fixture(params=RECIPES)
def trained(
    request: pytest.FixtureRequest, exported: Callable[..., tuple[LateMaskModel, Path]]
) -> tuple[LateMaskModel, Path]:
    return exported(*request.param)


def test_auto_class_gives_the_models_own_logits(trained: tuple[LateMaskModel, Path]) -> None:
    model, folder = trained
    auto = AutoModelForMaskedLM.from_pretrained(
        folder, config=LateMaskConfig.from_pretrained(folder)
    )
    assert isinstance(auto, LateMaskForMaskedLM)
    mask, pad = model.config.known_vocab_size - 1, 1
    short = [0, 9, mask, 11, mask, 2]
    rows = torch.tensor([[*short, pad, pad], [0, 5, 6, mask, 7, 8, 9, 2]])
    labels = torch.full_like(rows, -100)
    labels[0, 2], labels[1, 3] = 12, 13
    with torch.no_grad():
        output = auto(rows, attention_mask=(rows != pad).long(), labels=labels)
        visible = torch.tensor([[0, 9, 11, 2]])
        expected = model.logits(visible, torch.tensor([[0, 1, 3, 5, 2, 4]]), 2)[0]
    torch.testing.assert_close(output.logits[0, [2, 4]], expected, atol=1e-5, rtol=0)
    asked = torch.stack([output.logits[0, 2], output.logits[1, 3]])
    torch.testing.assert_close(output.loss, F.cross_entropy(asked, torch.tensor([12, 13])))
    with pytest.raises(PretrainError, match="are possible"):
        auto(torch.zeros(1, 999, dtype=torch.long))


def test_transformers_own_pipeline_fills_masks_with_it(trained: tuple[LateMaskModel, Path]) -> None:
    _, folder = trained
    tokenizer = AutoTokenizer.from_pretrained(folder)
    fill = pipeline("fill-mask", LateMaskForMaskedLM.from_pretrained(folder), tokenizer=tokenizer)
    found = fill("the array of<mask> given", top_k=3)
    assert len(found) == 3
    assert found[0]["score"] >= found[1]["score"] > 0


def test_nothing_warns_of_another_model_type(
    trained: tuple[LateMaskModel, Path], caplog: pytest.LogCaptureFixture
) -> None:
    _, folder = trained
    hf_logging.enable_propagation()
    try:
        assert LateMaskConfig.from_pretrained(folder).model_type == "latemask"
    finally:
        hf_logging.disable_propagation()
    assert not caplog.records
