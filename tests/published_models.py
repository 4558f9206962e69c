"""Small encoders with the layouts of published ones, random weights, and their tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    CamembertConfig,
    CamembertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from tests.published_tokenizers import PUBLISHED

LAYERS, LONGEST = 4, 64
_SHAPE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "intermediate_size": 48,
}  # fmt: skip
_ROBERTA = {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "max_position_embeddings": LONGEST + 2}
_MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bert": (BertConfig, BertForMaskedLM, {"max_position_embeddings": LONGEST}),
    "modernbert": (
        ModernBertConfig,
        ModernBertForMaskedLM,
        {"max_position_embeddings": LONGEST, "local_attention": 16, "mlp_dropout": 0.0},
    ),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaForMaskedLM, _ROBERTA),
    "camembert": (CamembertConfig, CamembertForMaskedLM, _ROBERTA),
}
NAMES = tuple(_MODELS)


def write_published(folder: Path, name: str) -> PreTrainedModel:
    """Write tokenizer and masked LM; modernbert has more rows than its tokenizer has tokens."""
    PUBLISHED[name](folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    make_config: Callable[..., Any]
    make_model: Callable[..., PreTrainedModel]
    make_config, make_model, settings = _MODELS[name]
    rows = len(tokenizer) + (23 if name == "modernbert" else 0)
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    if name == "modernbert":
        ids |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    torch.manual_seed(0)
    model = make_model(make_config(vocab_size=rows, **_SHAPE, **settings, **ids)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model
