"""BERT: RoBERTa's layers; positions that begin at row 0, two token types, a head of other names.

Every token of pretraining is of type 0. The row of type 1 stays as it is drawn or imported: pairs
use it in finetuning. The head for the next sentence, which other BERTs have, is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from pretrain.architectures.base import Architecture, Names, refuse_variant
from pretrain.architectures.roberta import Roberta, from_shared_settings, shared_settings
from pretrain.recipe import ModelConfig

TOKEN_TYPES = 2
_HEAD: Names = {
    "head.dense.weight": "cls.predictions.transform.dense.weight",
    "head.dense.bias": "cls.predictions.transform.dense.bias",
    "head.norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "head.norm.bias": "cls.predictions.transform.LayerNorm.bias",
}


class Bert(Roberta):
    """Norms after the sublayers."""

    name = "bert"
    title = "BERT"
    prefix = "bert."
    padding_position = None
    has_token_types = True
    head_bias = ("cls.predictions.decoder.bias", "cls.predictions.bias")
    head_decoder = "cls.predictions.decoder.weight"
    head_names = _HEAD

    def embedding_modules(self, config: ModelConfig) -> dict[str, nn.Module]:
        """RoBERTa's and the token types."""
        types = nn.Embedding(TOKEN_TYPES, config.hidden_size)
        return super().embedding_modules(config) | {"token_type_embeddings": types}

    def embed(
        self, modules: Mapping[str, nn.Module], vectors: Tensor, position_ids: Tensor
    ) -> Tensor:
        """The normalised sum of word, type 0 and position."""
        type_0 = modules["token_type_embeddings"](position_ids.new_zeros(1))
        positions = modules["position_embeddings"](position_ids)
        return modules["embedding_norm"](vectors + type_0 + positions)

    def to_stock_config(self, config: ModelConfig) -> PreTrainedConfig:
        """BertConfig; its special tokens have the tokenizer's ids, which are RoBERTa's."""
        return BertConfig(**shared_settings(config), type_vocab_size=TOKEN_TYPES)

    def from_stock_config(self, config: Any) -> ModelConfig:
        """Of BertConfig; what id padding has makes no difference to what is computed."""
        refuse_variant(config, hidden_act="gelu", type_vocab_size=TOKEN_TYPES, is_decoder=False)
        return from_shared_settings(config, self.name)

    def make_stock_encoder(self, config: Any) -> PreTrainedModel:
        """BertModel."""
        return BertModel(config, add_pooling_layer=False)

    def make_stock_masked_lm(self, config: Any) -> PreTrainedModel:
        """BertForMaskedLM."""
        return BertForMaskedLM(config)

    def encoder_names(self, config: ModelConfig) -> Names:
        """RoBERTa's and the token types."""
        types = "token_type_embeddings.weight"
        return super().encoder_names(config) | {types: f"embeddings.{types}"}

    def to_stock_weights(
        self, weights: Mapping[str, Tensor], config: ModelConfig
    ) -> dict[str, Tensor]:
        """The token types are weights of their own here."""
        return Architecture.to_stock_weights(self, weights, config)

    def from_stock_weights(
        self, stock: Mapping[str, Tensor], config: ModelConfig
    ) -> dict[str, Tensor]:
        """Norms of the first release, gamma and beta, are read, too."""
        modern = {
            name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
                "LayerNorm.beta", "LayerNorm.bias"
            ): tensor
            for name, tensor in stock.items()
        }
        return Architecture.from_stock_weights(self, modern, config)
