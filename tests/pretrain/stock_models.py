"""Stock transformers models of every architecture, small, with random weights that all matter."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForMaskedLM,
)

VOCAB, MASK = 70, 69
_FAMILY: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 50,
}  # fmt: skip
_ROBERTA = {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
_IDS = {
    "bos_token_id": 0,
    "cls_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
}
_WINDOW = {**_IDS, "local_attention": 8}  # shorter than the sequences, so that it matters

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta": ("roberta", _ROBERTA),
    "roberta, one layer, untied": (
        "roberta",
        {**_ROBERTA, "num_hidden_layers": 1, "tie_word_embeddings": False},
    ),
    "roberta-prelayernorm": ("roberta-prelayernorm", _ROBERTA),
    "roberta-prelayernorm, wide": (
        "roberta-prelayernorm",
        {**_ROBERTA, "hidden_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2},
    ),
    "bert": ("bert", {}),
    "bert, deep, untied": ("bert", {"num_hidden_layers": 5, "tie_word_embeddings": False}),
    "modernbert": ("modernbert", _WINDOW),
    "modernbert, untied, all layers full": (
        "modernbert",
        {**_IDS, "layer_types": ["full_attention"] * 3, "tie_word_embeddings": False},
    ),
    "modernbert, every second layer, other thetas": (
        "modernbert",
        {
            **_WINDOW,
            "num_hidden_layers": 4,
            "global_attn_every_n_layers": 2,
            "global_rope_theta": 500.0,
            "local_rope_theta": 50.0,
            "num_attention_heads": 2,
        },
    ),
    "modernbert, one full layer": ("modernbert", {**_WINDOW, "global_attn_every_n_layers": 9}),
    "modernbert-base's layers": ("modernbert", {**_WINDOW, "num_hidden_layers": 22}),
    "modernbert-large's layers": (
        "modernbert",
        {**_WINDOW, "num_hidden_layers": 28, "num_attention_heads": 16},
    ),
}
_KINDS: dict[str, tuple[Any, Any]] = {
    "roberta": (RobertaConfig, RobertaForMaskedLM),
    "roberta-prelayernorm": (RobertaPreLayerNormConfig, RobertaPreLayerNormForMaskedLM),
    "bert": (BertConfig, BertForMaskedLM),
    "modernbert": (ModernBertConfig, ModernBertForMaskedLM),
}


def make_stock(shape: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """The masked LM of `SHAPES[shape]`; biases and norms are random, too."""
    name, settings = SHAPES[shape]
    make_config, make_model = _KINDS[name]
    torch.manual_seed(seed)
    model: PreTrainedModel = make_model(make_config(**_FAMILY | settings | changes)).eval()
    depth = model.config.num_hidden_layers
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += min(0.3, 1 / depth) * torch.randn_like(parameter)
    return model
