"""An encoder with late [MASK] insertion (Liao et al. 2022, sections 3 and 4).

Letters: B sequences, T positions, m mask positions, n = T - m visible tokens, s predicted
positions, h width, L encoder layers, k insertion layer, d decoder layers, V vocabulary.

What is particular to RoBERTa, BERT or ModernBERT is in `architectures/`. In all of them attention
knows no order but what it is told of positions, so those of a sequence may stand in any order.
`masking.py` uses that: visible tokens first, then the mask positions, with the
s predicted positions last. Inserting the [MASK]s is then one concatenation, and "only where
something is predicted" is the slice `[:, -s:]`: no gather, no scatter, no padding mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.architectures import architecture_of
from pretrain.loss import linear_cross_entropy
from pretrain.recipe import MaskingConfig, ModelConfig


class MlmOutput(NamedTuple):
    """Sums over the predicted positions of one micro-batch whose label is not IGNORE."""

    loss_sum: Tensor  # [] cross-entropy in nats
    correct: Tensor  # [] positions whose most likely token is the original


class LateMaskModel(nn.Module):
    """L encoder layers that [MASK]s enter at `insert_layer`, then d decoder layers, then the head.

    `insert_layer` 0 with no decoder layers is ordinary masked language modelling. The decoder
    layers exist for pretraining only: `export.py` does not write them (paper, figure 2). `masking`
    may be replaced during training by one with other rates and another insertion layer.
    """

    sequence_length: int | None = None
    """All positions are below this; None: not known. Some masks of attention need not be built."""

    def __init__(self, config: ModelConfig, masking: MaskingConfig) -> None:
        super().__init__()
        self.config, self.masking = config, masking
        self.architecture = architecture_of(config)
        h = config.hidden_size
        self.word_embeddings = nn.Embedding(config.padded_vocab_size, h)
        embedding_modules = self.architecture.embedding_modules(config)
        for name, module in embedding_modules.items():
            self.add_module(name, module)
        self._embedding_names = tuple(embedding_modules)
        self.layers = nn.ModuleList(
            self.architecture.make_layer(config, index) for index in range(config.num_hidden_layers)
        )
        self.late_layers = nn.ModuleList(
            self.architecture.make_decoder_layer(config, masking)
            for _ in range(masking.late_layers)
        )
        self.final_norm = self.architecture.make_final_norm(config)
        if masking.late_layers:
            self.late_norm = self.architecture.make_final_norm(config)
        if masking.mask_embedding == "separate":
            self.mask_embedding = nn.Parameter(torch.zeros(h))
        if self.architecture.scales_masks:
            self.mask_scale = nn.Parameter(torch.ones(h))
        self.head = self.architecture.make_head(config)

    @property
    def decoder(self) -> Tensor:
        """[V padded, h] what the head's states are multiplied with."""
        tied = self.config.tie_word_embeddings
        return self.word_embeddings.weight if tied else self.head.decoder

    def forward(self, input_ids: Tensor, position_ids: Tensor, labels: Tensor) -> MlmOutput:
        """Summed cross-entropy of the predicted positions; no [B, s, V] logits ever exist.

        Every predicted token has the same weight, whatever sequence it is in.

        Args:
            input_ids: [B, n] visible tokens (random replacements among them).
            position_ids: [B, T] 0-based positions in the sequence: of `input_ids` first, then the
                m = T - n mask positions.
            labels: [B, s] original tokens at the last s of these T positions; IGNORE where none is
                to be predicted.
        """
        hidden = self.predicted_states(input_ids, position_ids, labels.shape[1])
        return MlmOutput(
            *linear_cross_entropy(
                hidden.flatten(0, 1), self.decoder, self.head.bias, labels.flatten()
            )
        )

    def logits(self, input_ids: Tensor, position_ids: Tensor, num_predicted: int) -> Tensor:
        """[B, num_predicted, V] logits of the last positions, for inspection; not for training."""
        hidden = self.predicted_states(input_ids, position_ids, num_predicted)
        return F.linear(hidden, self.decoder, self.head.bias)[..., : self.config.known_vocab_size]

    def predicted_states(
        self, input_ids: Tensor, position_ids: Tensor, num_predicted: int
    ) -> Tensor:
        """[B, num_predicted, h] head states of the last positions; arguments as in `forward`."""
        k = self.masking.insertion_layer
        num_visible = input_ids.shape[1]
        visible_positions = position_ids[:, :num_visible]
        hidden = self.embed(input_ids, visible_positions)
        if k > 0:
            hidden = self._run(self.layers[:k], hidden, self._positions(visible_positions))
        masks = self.embed_masks(position_ids[:, num_visible:])
        positions = self._positions(position_ids)
        if k == len(self.layers):
            hidden = torch.cat([self.final_norm(hidden), masks], dim=1)
            return self.head(self._decode(hidden, positions, num_visible, num_predicted))
        hidden = torch.cat([hidden, masks], dim=1)
        if self.late_layers:
            hidden = self.final_norm(self._run(self.layers[k:], hidden, positions))
            return self.head(self._decode(hidden, positions, num_visible, num_predicted))
        hidden = self._run(self.layers[k:], hidden, positions, last=num_predicted)
        return self.head(self.final_norm(hidden))

    def _decode(
        self, hidden: Tensor, positions: Any, num_visible: int, num_predicted: int
    ) -> Tensor:
        """Decoder layers: [B, T, h] encoded -> [B, num_predicted, h] of the last positions."""
        if self.masking.late_attention == "self":
            hidden = self._run(self.late_layers, hidden, positions, last=num_predicted)
            return self.late_norm(hidden)
        memory = hidden[:, :num_visible]
        if self.masking.cross_queries == "all":
            *rest, final = self.late_layers
            for layer in rest:
                hidden = layer(hidden, memory)
            return self.late_norm(final(hidden, memory, last=num_predicted))
        visible, hidden = hidden[:, -num_predicted:num_visible], hidden[:, num_visible:]
        for layer in self.late_layers:
            hidden = layer(hidden, memory)
        return torch.cat([visible, self.late_norm(hidden)], dim=1)

    def _run(
        self, layers: nn.ModuleList, hidden: Tensor, positions: Any, last: int | None = None
    ) -> Tensor:
        """All `layers` on [B, T, h]; with `last`, the final one at the last positions only."""
        *rest, final = layers
        for layer in rest:
            hidden = layer(hidden, positions=positions)
        return final(hidden, last=last, positions=positions)

    def _positions(self, position_ids: Tensor) -> Any:
        return self.architecture.attention_positions(
            self.config, position_ids, self.sequence_length
        )

    def encode(self, input_ids: Tensor) -> Tensor:
        """[B, T] token ids without [MASK] -> [B, T, h]: what the stock encoder computes."""
        length = input_ids.shape[1]
        position_ids = torch.arange(length, device=input_ids.device).expand_as(input_ids)
        positions = self.architecture.attention_positions(self.config, position_ids, length)
        return self.final_norm(
            self._run(self.layers, self.embed(input_ids, position_ids), positions)
        )

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """[B, n] ids and their 0-based positions -> [B, n, h], normalised as the encoder does."""
        return self._embed(self.word_embeddings(input_ids), position_ids)

    def embed_masks(self, position_ids: Tensor) -> Tensor:
        """[B, m] mask positions -> [B, m, h]: the [MASK] vector, embedded as tokens are.

        Where the layers add to a stream that no norm brings back to the scale of the embeddings,
        [MASK]s that enter later have learned weights of their own for the norm.
        """
        if self.masking.mask_embedding == "separate":
            vector: Tensor = self.mask_embedding
        else:
            vector = self.word_embeddings.weight[self.config.token_id("mask")]
        masks = self._embed(vector, position_ids)
        if not self.architecture.scales_masks:
            return masks
        # At k = 0 a [MASK] is a token like any other. The weights then get a gradient of zeros:
        # DeepSpeed and the checkpoints expect one of every parameter.
        later = float(self.masking.insertion_layer > 0)
        return masks * (later * self.mask_scale + (1 - later))

    def _embed(self, vectors: Tensor, position_ids: Tensor) -> Tensor:
        modules = {name: getattr(self, name) for name in self._embedding_names}
        hidden = self.architecture.embed(modules, vectors, position_ids)
        return F.dropout(hidden, self.config.dropout, self.training)
