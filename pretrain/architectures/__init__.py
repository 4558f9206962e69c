"""The encoders that can be trained, one file each; docs/pretraining.md says how to add another."""

from __future__ import annotations

from pretrain.architectures.base import Architecture
from pretrain.architectures.bert import Bert
from pretrain.architectures.modernbert import ModernBert
from pretrain.architectures.roberta import Roberta, RobertaPreLayerNorm
from pretrain.errors import PretrainError
from pretrain.recipe import ModelConfig

_ALL: tuple[Architecture, ...] = (Roberta(), RobertaPreLayerNorm(), Bert(), ModernBert())
_ARCHITECTURES = {architecture.name: architecture for architecture in _ALL}
# What computes the same under another model_type.
_ALIASES = {"xlm-roberta": "roberta", "camembert": "roberta"}


def architecture_of(config: ModelConfig) -> Architecture:
    """The encoder that `model.architecture` names."""
    return _ARCHITECTURES[config.architecture]


def architecture_of_stock(model_type: str) -> Architecture:
    """The encoder of a stock config.

    Raises:
        PretrainError: another one.
    """
    name = _ALIASES.get(model_type, model_type)
    if name not in _ARCHITECTURES:
        known = ", ".join([*_ARCHITECTURES, *_ALIASES])
        raise PretrainError(f"model_type is {model_type!r}; these can be read: {known}")
    return _ARCHITECTURES[name]
