"""What an encoder has to say of itself, for `pretrain/model.py` to train and export it.

`LateMaskModel` knows what all encoders share: tokens are embedded, [MASK]s enter at some layer,
layers follow one another, then a final norm and the head. An `Architecture` makes these parts, and
knows the stock transformers model that computes the same: its config, and the names of its weights.
Letters as in `model.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pretrain.errors import PretrainError
from pretrain.layers import UNREACHABLE, MlmHead
from pretrain.recipe import MaskingConfig, ModelConfig

Names = dict[str, str | list[str]]
"""Our name of a tensor to the stock name, or to those of tensors that are one matrix here."""


class Architecture(ABC):
    """An encoder."""

    name: ClassVar[str]
    """`model.architecture`, and the `model_type` of the stock config."""
    title: ClassVar[str]
    """For people."""
    prefix: ClassVar[str]
    """Of the encoder's weights in a stock model that has a head."""
    padding_position: ClassVar[int | None] = None
    """Row of the position table that padding takes; those of tokens begin behind it."""
    has_position_table: ClassVar[bool] = True
    """Whether positions are embedded, or known to attention alone."""
    token_types: ClassVar[int] = 0
    """Rows of the table `token_type_embeddings`; every token of pretraining is of type 0."""
    gated: ClassVar[bool] = False
    """Whether the feed-forward network has a gate, a third matrix of the same size."""
    scales_masks: ClassVar[bool] = False
    """Whether [MASK]s that enter after a layer are multiplied with a learned factor."""
    head_bias: ClassVar[tuple[str, ...]]
    """Stock names of the head's bias over the vocabulary: what is added, then its copies."""
    head_decoder: ClassVar[str]
    """Stock name of the matrix that the head's states are multiplied with."""
    head_names: ClassVar[Names]
    """Of the other weights of the head."""

    # The parts of the model.

    @abstractmethod
    def embedding_modules(self, config: ModelConfig) -> dict[str, nn.Module]:
        """What embeds beside `word_embeddings`; by the names that they get in the model."""

    @abstractmethod
    def embed(
        self, modules: Mapping[str, nn.Module], vectors: Tensor, position_ids: Tensor
    ) -> Tensor:
        """Word vectors [B, n, h] or [h] at 0-based positions [B, n] -> [B, n, h].

        `modules` are those of `embedding_modules`. Dropout follows in `model.py`.
        """

    @abstractmethod
    def make_layer(self, config: ModelConfig, index: int) -> nn.Module:
        """Layer `index` of the encoder.

        Called as `layer(hidden, positions=…, last=…)`: [B, T, h] -> [B, T, h], or [B, last, h]
        where only the last positions are queries. `positions` is what `attention_positions` gives.
        """

    @abstractmethod
    def make_decoder_layer(self, config: ModelConfig, masking: MaskingConfig) -> nn.Module:
        """A layer for pretraining only, called as those of the encoder; one with cross-attention
        as `layer(hidden, memory, last=…)`.
        """

    def make_final_norm(self, config: ModelConfig) -> nn.Module:
        """What stands behind the last layer; by default nothing."""
        return nn.Identity()

    def make_head(self, config: ModelConfig) -> MlmHead:
        """The head before the decoder matrix."""
        return MlmHead(config)

    def attention_positions(
        self, config: ModelConfig, position_ids: Tensor, sequence_length: int | None
    ) -> Any:
        """What self-attention has to know of the 0-based positions [B, T]; by default
        nothing, since the embeddings tell them.

        Args:
            config: the model's.
            position_ids: of the layers' inputs, in their order.
            sequence_length: all positions are below this; None where that is not known.
        """
        return None

    def longest_sequence(self, config: ModelConfig) -> int:
        """Tokens that a sequence may have."""
        first = 0 if self.padding_position is None else self.padding_position + 1
        return config.max_position_embeddings - first

    # Initial weights.

    def draw(self, weight: Tensor, std: float, generator: torch.Generator) -> None:
        """Fill `weight` with random numbers of standard deviation `std`."""
        nn.init.normal_(weight, std=std, generator=generator)

    def weight_scale(self, name: str, config: ModelConfig) -> float:
        """What the standard deviation of the linear layer `name` is multiplied with."""
        return 1.0

    # The stock model that computes the same.

    @abstractmethod
    def to_stock_config(self, config: ModelConfig) -> PreTrainedConfig:
        """The config of the stock model."""

    @abstractmethod
    def from_stock_config(self, config: Any) -> ModelConfig:
        """Our config for a stock one.

        Raises:
            PretrainError: a variant that our encoder does not compute.
        """

    @abstractmethod
    def make_stock_encoder(self, config: Any) -> PreTrainedModel:
        """The stock model without head and pooler."""

    @abstractmethod
    def make_stock_masked_lm(self, config: Any) -> PreTrainedModel:
        """The stock model with its MLM head."""

    @abstractmethod
    def encoder_names(self, config: ModelConfig) -> Names:
        """Of all the encoder's weights, without prefix."""

    def to_stock_weights(
        self, weights: Mapping[str, Tensor], config: ModelConfig
    ) -> dict[str, Tensor]:
        """The encoder's weights under stock names, without prefix, the vocabulary's padding cut
        off.
        """
        names = self.encoder_names(config)
        stock: dict[str, Tensor] = {}
        for ours, theirs in names.items():
            if isinstance(theirs, str):
                stock[theirs] = weights[ours]
            else:
                stock |= zip(theirs, weights[ours].chunk(len(theirs)), strict=True)
        words = str(names["word_embeddings.weight"])
        stock[words] = stock[words][: config.known_vocab_size]
        return {name: tensor.contiguous() for name, tensor in stock.items()}

    def to_stock_head(
        self, weights: Mapping[str, Tensor], config: ModelConfig
    ) -> dict[str, Tensor]:
        """The MLM head's weights under stock names, the vocabulary's padding cut off."""
        decoder = "word_embeddings.weight" if config.tie_word_embeddings else "head.decoder"
        stock = {str(theirs): weights[ours] for ours, theirs in self.head_names.items()}
        stock[self.head_decoder] = weights[decoder][: config.known_vocab_size]
        return stock | dict.fromkeys(
            self.head_bias, weights["head.bias"][: config.known_vocab_size]
        )

    def from_stock_weights(
        self, stock: Mapping[str, Tensor], config: ModelConfig
    ) -> dict[str, Tensor]:
        """Our names for a stock state dict, with or without prefix and MLM head.

        Raises:
            PretrainError: a weight is missing.
        """
        stock = {name.removeprefix(self.prefix): tensor for name, tensor in stock.items()}
        head_bias = next((stock[name] for name in self.head_bias if name in stock), None)
        encoder_names = self.encoder_names(config)
        names = encoder_names | (self.head_names if head_bias is not None else {})
        groups = [_as_list(theirs) for theirs in names.values()]
        if missing := [name for group in groups for name in group if name not in stock]:
            raise PretrainError(f"not the weights of a {self.name}: {missing[0]} is missing")
        deeper = replace(config, num_hidden_layers=config.num_hidden_layers + 1)
        of_next_layer = [
            _as_list(theirs)
            for ours, theirs in self.encoder_names(deeper).items()
            if ours not in encoder_names
        ]
        if more := [name for group in of_next_layer for name in group if name in stock]:
            raise PretrainError(
                f"config.json says {config.num_hidden_layers} layers, the weights have more: "
                f"{min(more)}; put the right config.json beside them"
            )
        weights = {
            ours: stock[theirs]
            if isinstance(theirs, str)
            else torch.cat([stock[name] for name in theirs])
            for ours, theirs in names.items()
        }
        weights["word_embeddings.weight"] = pad(weights["word_embeddings.weight"], config)
        if head_bias is not None:
            weights["head.bias"] = pad(head_bias, config, UNREACHABLE)
            if not config.tie_word_embeddings:
                weights["head.decoder"] = pad(stock[self.head_decoder], config)
        return weights


def _as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def pad(tensor: Tensor, config: ModelConfig, value: float = 0.0) -> Tensor:
    """[V, …] -> [V padded, …]."""
    padding = config.padded_vocab_size - config.known_vocab_size
    return F.pad(tensor, (0, 0) * (tensor.ndim - 1) + (0, padding), value=value)


def refuse_variant(config: Any, **expected: Any) -> None:
    """PretrainError where the stock config says something else than `expected`."""
    for key, value in expected.items():
        found = getattr(config, key)
        if found != value:
            raise PretrainError(
                f"{config.model_type} with {key} = {found!r} can't be read; {value!r} can"
            )
