"""RoBERTa and RoBERTa-PreLayerNorm: learned positions, a norm after or before each sublayer.

Ours differ from the stock weights in two things: queries, keys and values are one matrix, and the
vocabulary is padded. XLM-RoBERTa and CamemBERT compute the same, and are written as RoBERTa.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForMaskedLM,
    RobertaPreLayerNormModel,
)

from pretrain.architectures.base import Architecture, Names, refuse_variant
from pretrain.layers import Block, CrossBlock
from pretrain.recipe import MaskingConfig, ModelConfig

_PADDING = 1
_POSITIONS = "embeddings.position_embeddings.weight"
_TOKEN_TYPES = "token_type_embeddings.weight"
_HEAD: Names = {
    "head.dense.weight": "lm_head.dense.weight",
    "head.dense.bias": "lm_head.dense.bias",
    "head.norm.weight": "lm_head.layer_norm.weight",
    "head.norm.bias": "lm_head.layer_norm.bias",
}


class Roberta(Architecture):
    """Norms after the sublayers."""

    name = "roberta"
    title = "RoBERTa"
    prefix = "roberta."
    padding_position: ClassVar[int | None] = _PADDING
    token_types = 1
    pre_norm = False
    head_bias = ("lm_head.decoder.bias", "lm_head.bias")
    head_decoder = "lm_head.decoder.weight"
    head_names = _HEAD

    def embedding_modules(self, config: ModelConfig) -> dict[str, nn.Module]:
        """The tables of positions and token types, and the norm of the sums."""
        rows, h = config.max_position_embeddings, config.hidden_size
        return {
            "position_embeddings": nn.Embedding(rows, h, padding_idx=self.padding_position),
            "embedding_norm": nn.LayerNorm(h, eps=config.norm_eps),
            "token_type_embeddings": nn.Embedding(self.token_types, h),
        }

    def embed(
        self, modules: Mapping[str, nn.Module], vectors: Tensor, position_ids: Tensor
    ) -> Tensor:
        """The normalised sum of word, type 0 and position."""
        first = 0 if self.padding_position is None else self.padding_position + 1
        type_0 = modules["token_type_embeddings"](position_ids.new_zeros(1))
        positions = modules["position_embeddings"](position_ids + first)
        return modules["embedding_norm"](vectors + type_0 + positions)

    def make_layer(self, config: ModelConfig, index: int) -> nn.Module:
        """All alike."""
        return Block(config, pre_norm=self.pre_norm)

    def make_decoder_layer(self, config: ModelConfig, masking: MaskingConfig) -> nn.Module:
        """Like those of the encoder, and with cross-attention where that is asked for."""
        kind = CrossBlock if masking.late_attention == "cross" else Block
        return kind(config, pre_norm=self.pre_norm)

    def to_stock_config(self, config: ModelConfig) -> PreTrainedConfig:
        """RobertaConfig."""
        return RobertaConfig(**shared_settings(config), type_vocab_size=1)

    def from_stock_config(self, config: Any) -> ModelConfig:
        """Of RobertaConfig or RobertaPreLayerNormConfig."""
        refuse_variant(
            config, hidden_act="gelu", pad_token_id=_PADDING, type_vocab_size=1, is_decoder=False
        )
        return from_shared_settings(config, self.name)

    def make_stock_encoder(self, config: Any) -> PreTrainedModel:
        """RobertaModel."""
        return RobertaModel(config, add_pooling_layer=False)

    def make_stock_masked_lm(self, config: Any) -> PreTrainedModel:
        """RobertaForMaskedLM."""
        return RobertaForMaskedLM(config)

    def encoder_names(self, config: ModelConfig) -> Names:
        """Three matrices are one here."""
        return bert_names(
            config,
            {
                "attention_output": "attention.output.dense",
                "attention_norm": "attention.output.LayerNorm",
                "intermediate": "intermediate.dense",
                "output": "output.dense",
                "output_norm": "output.LayerNorm",
            },
        )

    def to_stock_weights(
        self, weights: Mapping[str, Tensor], config: ModelConfig
    ) -> dict[str, Tensor]:
        """Checkpoints of earlier releases may lack the token types, which were zero."""
        zeros = torch.zeros(self.token_types, config.hidden_size)
        return super().to_stock_weights({_TOKEN_TYPES: zeros, **weights}, config)

    def from_stock_weights(
        self, stock: Mapping[str, Tensor], config: ModelConfig
    ) -> dict[str, Tensor]:
        """Norms of BERT's first release, gamma and beta, are read, too."""
        modern = {
            name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
                "LayerNorm.beta", "LayerNorm.bias"
            ): tensor
            for name, tensor in stock.items()
        }
        return super().from_stock_weights(modern, config)


class RobertaPreLayerNorm(Roberta):
    """Norms before the sublayers, and one behind the last layer."""

    name = "roberta-prelayernorm"
    title = "RoBERTa-PreLayerNorm"
    prefix = "roberta_prelayernorm."
    pre_norm = True

    def make_final_norm(self, config: ModelConfig) -> nn.Module:
        """The stock model's `LayerNorm`."""
        return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)

    def to_stock_config(self, config: ModelConfig) -> PreTrainedConfig:
        """RobertaPreLayerNormConfig."""
        return RobertaPreLayerNormConfig(**shared_settings(config), type_vocab_size=1)

    def make_stock_encoder(self, config: Any) -> PreTrainedModel:
        """RobertaPreLayerNormModel."""
        return RobertaPreLayerNormModel(config, add_pooling_layer=False)

    def make_stock_masked_lm(self, config: Any) -> PreTrainedModel:
        """RobertaPreLayerNormForMaskedLM."""
        return RobertaPreLayerNormForMaskedLM(config)

    def encoder_names(self, config: ModelConfig) -> Names:
        """The norms have other names, and there is one more."""
        names = bert_names(
            config,
            {
                "attention_output": "attention.output.dense",
                "attention_norm": "attention.LayerNorm",
                "intermediate": "intermediate.dense",
                "output": "output.dense",
                "output_norm": "intermediate.LayerNorm",
            },
        )
        final: Names = {f"final_norm.{kind}": f"LayerNorm.{kind}" for kind in ("weight", "bias")}
        return names | final


def shared_settings(config: ModelConfig) -> dict[str, Any]:
    """What the stock configs of BERT's family have in common."""
    return {
        "vocab_size": config.known_vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        # New heads are drawn with this: 0.02 would silence those of a narrow model.
        "initializer_range": config.initializer_range or config.hidden_size**-0.5,
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": config.token_id("cls"),
        "pad_token_id": config.token_id("pad"),
        "eos_token_id": config.token_id("sep"),
    }


def from_shared_settings(config: Any, name: str) -> ModelConfig:
    """The same undone, for the architecture `name`."""
    return ModelConfig(
        architecture=name,  # type: ignore[arg-type]
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_position_embeddings,
        layer_norm_eps=config.layer_norm_eps,
        dropout=config.hidden_dropout_prob,
        initializer_range=config.initializer_range,
        tie_word_embeddings=config.tie_word_embeddings,
        vocab_size=config.vocab_size,
        cls_token_id=config.bos_token_id,
        sep_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )


def bert_names(config: ModelConfig, layer_modules: dict[str, str]) -> Names:
    """Names of BERT's family; `layer_modules` are our modules of a layer and the stock ones."""
    names: Names = {
        "word_embeddings.weight": "embeddings.word_embeddings.weight",
        "position_embeddings.weight": _POSITIONS,
        _TOKEN_TYPES: f"embeddings.{_TOKEN_TYPES}",
    }
    for kind in ("weight", "bias"):
        names[f"embedding_norm.{kind}"] = f"embeddings.LayerNorm.{kind}"
        for index in range(config.num_hidden_layers):
            ours, theirs = f"layers.{index}.", f"encoder.layer.{index}."
            names[f"{ours}qkv.{kind}"] = [
                f"{theirs}attention.self.{part}.{kind}" for part in ("query", "key", "value")
            ]
            for our_module, their_module in layer_modules.items():
                names[f"{ours}{our_module}.{kind}"] = f"{theirs}{their_module}.{kind}"
    return names
