"""BERT: RoBERTa's layers; positions that begin at row 0, two token types, a head of other names.

Every token of pretraining is of type 0. The row of type 1 stays as it is drawn or imported: pairs
use it in finetuning. The head for the next sentence, which other BERTs have, is not read.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from pretrain.architectures.base import Names, refuse_variant
from pretrain.architectures.roberta import Roberta, from_shared_settings, shared_settings
from pretrain.recipe import ModelConfig

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
    token_types = 2
    head_bias = ("cls.predictions.decoder.bias", "cls.predictions.bias")
    head_decoder = "cls.predictions.decoder.weight"
    head_names = _HEAD

    def to_stock_config(self, config: ModelConfig) -> PreTrainedConfig:
        """BertConfig."""
        return BertConfig(**shared_settings(config), type_vocab_size=self.token_types)

    def from_stock_config(self, config: Any) -> ModelConfig:
        """Of BertConfig; what id padding has makes no difference to what is computed."""
        refuse_variant(
            config, hidden_act="gelu", type_vocab_size=self.token_types, is_decoder=False
        )
        return from_shared_settings(config, self.name)

    def make_stock_encoder(self, config: Any) -> PreTrainedModel:
        """BertModel."""
        return BertModel(config, add_pooling_layer=False)

    def make_stock_masked_lm(self, config: Any) -> PreTrainedModel:
        """BertForMaskedLM."""
        return BertForMaskedLM(config)
