"""Our weights to and from Hugging Face's RoBERTa and RoBERTa-PreLayerNorm, name by name.

Ours differ in three things only: queries, keys and values are one matrix, the vocabulary is padded,
and the single token-type row, which every token adds, is folded into the positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig, RobertaConfig, RobertaPreLayerNormConfig

from pretrain.errors import PretrainError
from pretrain.layers import UNREACHABLE
from pretrain.recipe import ModelConfig

_WORDS = "embeddings.word_embeddings.weight"
_EMBEDDINGS = {
    "word_embeddings.weight": _WORDS,
    "position_embeddings.weight": "embeddings.position_embeddings.weight",
    "embedding_norm.weight": "embeddings.LayerNorm.weight",
    "embedding_norm.bias": "embeddings.LayerNorm.bias",
}
_HEAD = {
    "head.dense.weight": "lm_head.dense.weight",
    "head.dense.bias": "lm_head.dense.bias",
    "head.norm.weight": "lm_head.layer_norm.weight",
    "head.norm.bias": "lm_head.layer_norm.bias",
    "head.bias": "lm_head.bias",
}
_TOKEN_TYPE = "embeddings.token_type_embeddings.weight"


def to_hf_config(model: ModelConfig) -> PreTrainedConfig:
    """The stock config that computes what our encoder computes."""
    kind = RobertaPreLayerNormConfig if model.norm == "pre" else RobertaConfig
    return kind(
        vocab_size=model.pieces,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads,
        intermediate_size=model.intermediate_size,
        max_position_embeddings=model.max_position_embeddings,
        layer_norm_eps=model.layer_norm_eps,
        hidden_act="gelu",
        hidden_dropout_prob=model.dropout,
        attention_probs_dropout_prob=model.dropout,
        # New heads are drawn with this: 0.02 would silence those of a narrow model.
        initializer_range=model.initializer_range or model.hidden_size**-0.5,
        type_vocab_size=1,
        tie_word_embeddings=model.tie_word_embeddings,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )


def from_hf_config(config: PreTrainedConfig) -> ModelConfig:
    """Our config for a stock RoBERTa or RoBERTa-PreLayerNorm.

    Raises:
        PretrainError: another architecture, or a variant that our encoder does not compute.
    """
    if config.model_type not in ("roberta", "roberta-prelayernorm"):
        raise PretrainError(
            f"model_type is {config.model_type!r}; roberta or roberta-prelayernorm can be read"
        )
    if config.hidden_act != "gelu" or config.pad_token_id != 1:
        raise PretrainError(
            f"hidden_act is {config.hidden_act!r} and pad_token_id {config.pad_token_id}; "
            "RoBERTa's 'gelu' and 1 can be read"
        )
    return ModelConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_position_embeddings,
        layer_norm_eps=config.layer_norm_eps,
        norm="pre" if config.model_type == "roberta-prelayernorm" else "post",
        dropout=config.hidden_dropout_prob,
        tie_word_embeddings=config.tie_word_embeddings,
        vocab_size=config.vocab_size,
    )


def to_hf_weights(weights: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """The encoder's weights under stock names, without the base model's prefix and the head."""
    stock = {theirs: weights[ours] for ours, theirs in _EMBEDDINGS.items()}
    stock[_WORDS] = stock[_WORDS][: model.pieces]
    stock[_TOKEN_TYPE] = torch.zeros(1, model.hidden_size)
    for index in range(model.num_hidden_layers):
        for ours, theirs in _layer_names(index, model.norm).items():
            if isinstance(theirs, str):
                stock[theirs] = weights[ours]
            else:
                stock |= zip(theirs, weights[ours].chunk(3), strict=True)
    if model.norm == "pre":
        stock |= {f"LayerNorm.{kind}": weights[f"final_norm.{kind}"] for kind in ("weight", "bias")}
    return {name: tensor.contiguous() for name, tensor in stock.items()}


def to_hf_head(weights: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """The MLM head's weights under stock names, the vocabulary's padding cut off."""
    decoder = "word_embeddings.weight" if model.tie_word_embeddings else "head.decoder"
    head = {theirs: weights[ours] for ours, theirs in _HEAD.items()}
    bias = weights["head.bias"][: model.pieces]
    return head | {
        "lm_head.bias": bias,
        "lm_head.decoder.weight": weights[decoder][: model.pieces],
        "lm_head.decoder.bias": bias,
    }


def from_hf_weights(stock: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """Our names for a stock state dict, with or without its base prefix and head."""
    stock = {
        name.removeprefix("roberta.").removeprefix("roberta_prelayernorm."): tensor
        for name, tensor in stock.items()
    }
    padding = model.padded_pieces - model.pieces
    weights = {ours: stock[theirs] for ours, theirs in _EMBEDDINGS.items()}
    weights["word_embeddings.weight"] = F.pad(stock[_WORDS], (0, 0, 0, padding))
    pad_position = weights["position_embeddings.weight"][1].clone()
    weights["position_embeddings.weight"] = (
        weights["position_embeddings.weight"] + stock[_TOKEN_TYPE][0]
    )
    weights["position_embeddings.weight"][1] = pad_position
    for index in range(model.num_hidden_layers):
        for ours, theirs in _layer_names(index, model.norm).items():
            weights[ours] = (
                stock[theirs] if isinstance(theirs, str) else torch.cat([stock[t] for t in theirs])
            )
    if model.norm == "pre":
        weights |= {f"final_norm.{kind}": stock[f"LayerNorm.{kind}"] for kind in ("weight", "bias")}
    if "lm_head.dense.weight" in stock:
        weights |= {ours: stock[theirs] for ours, theirs in _HEAD.items()}
        weights["head.bias"] = F.pad(stock["lm_head.bias"], (0, padding), value=UNREACHABLE)
        if not model.tie_word_embeddings:
            weights["head.decoder"] = F.pad(stock["lm_head.decoder.weight"], (0, 0, 0, padding))
    return weights


def _layer_names(index: int, norm: str) -> dict[str, str | list[str]]:
    """Our name to the stock name, or to the three that are one matrix here."""
    ours, theirs = f"layers.{index}.", f"encoder.layer.{index}."
    pre = norm == "pre"
    modules = {
        "attention_output": "attention.output.dense",
        "attention_norm": "attention.LayerNorm" if pre else "attention.output.LayerNorm",
        "intermediate": "intermediate.dense",
        "output": "output.dense",
        "output_norm": "intermediate.LayerNorm" if pre else "output.LayerNorm",
    }
    names: dict[str, str | list[str]] = {}
    for kind in ("weight", "bias"):
        names[f"{ours}qkv.{kind}"] = [
            f"{theirs}attention.self.{part}.{kind}" for part in ("query", "key", "value")
        ]
        for our_module, their_module in modules.items():
            names[f"{ours}{our_module}.{kind}"] = f"{theirs}{their_module}.{kind}"
    return names
