"""RoBERTa's encoder with late [MASK] insertion (Liao et al. 2022, sections 3 and 4).

Letters: B sequences, T positions, m mask positions, n = T - m visible tokens, s predicted
positions, h width, L encoder layers, k insertion layer, d decoder layers, V vocabulary.

Attention has no order but what the position embeddings say, so the positions of a sequence may
stand in any order. `masking.py` uses that: visible tokens first, then the mask positions, with the
s predicted positions last. Inserting the [MASK]s is then one concatenation, and "only where
something is predicted" is the slice `[:, -s:]`: no gather, no scatter, no padding mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.layers import Block, CrossBlock, MlmHead
from pretrain.loss import linear_cross_entropy
from pretrain.recipe import MaskingConfig, ModelConfig
from pretrain.rotary import angles_of

PADDING_IDX = 1  # RoBERTa: the first token of a sequence has position id PADDING_IDX + 1


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

    def __init__(self, config: ModelConfig, masking: MaskingConfig) -> None:
        super().__init__()
        self.config, self.masking = config, masking
        h, eps = config.hidden_size, config.layer_norm_eps
        self.word_embeddings = nn.Embedding(config.padded_pieces, h)
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings, h, padding_idx=PADDING_IDX
        )
        self.embedding_norm = nn.LayerNorm(h, eps=eps)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        kind = CrossBlock if masking.late_attention == "cross" else Block
        self.late_layers = nn.ModuleList(kind(config) for _ in range(masking.late_layers))
        if config.norm == "pre":
            self.final_norm = nn.LayerNorm(h, eps=eps)
            if masking.late_layers:
                self.late_norm = nn.LayerNorm(h, eps=eps)
        if masking.mask_embedding == "separate":
            self.mask_embedding = nn.Parameter(torch.zeros(h))
        self.head = MlmHead(config)

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
        return F.linear(hidden, self.decoder, self.head.bias)[..., : self.config.pieces]

    def predicted_states(
        self, input_ids: Tensor, position_ids: Tensor, num_predicted: int
    ) -> Tensor:
        """[B, num_predicted, h] head states of the last positions; arguments as in `forward`."""
        k, num_visible = self.masking.insert_layer, input_ids.shape[1]
        hidden = self.embed(input_ids, position_ids[:, :num_visible])
        for layer in self.layers[:k]:
            hidden = layer(hidden)
        masks = self.embed_masks(position_ids[:, num_visible:])
        if not self.late_layers:
            hidden = torch.cat([hidden, masks], dim=1)
            for layer in self.layers[k:-1]:
                hidden = layer(hidden)
            return self.head(self._finish(self.layers[-1](hidden, last=num_predicted)))
        if k == len(self.layers):
            hidden = torch.cat([self._finish(hidden), masks], dim=1)
        else:
            hidden = torch.cat([hidden, masks], dim=1)
            for layer in self.layers[k:]:
                hidden = layer(hidden)
            hidden = self._finish(hidden)
        return self.head(self._late(hidden, position_ids, num_visible, num_predicted))

    def _late(
        self, hidden: Tensor, position_ids: Tensor, num_visible: int, num_predicted: int
    ) -> Tensor:
        """Decoder layers: [B, T, h] encoded -> [B, num_predicted, h] of the last positions."""
        *rest, final = self.late_layers
        if self.masking.late_attention == "self":
            angles = self._late_angles(position_ids)
            for layer in rest:
                hidden = layer(hidden, angles=angles)
            return self._finish_late(final(hidden, last=num_predicted, angles=angles))
        memory = hidden[:, :num_visible]
        if self.masking.cross_queries == "all":
            for layer in rest:
                hidden = layer(hidden, memory)
            return self._finish_late(final(hidden, memory, last=num_predicted))
        visible, hidden = hidden[:, -num_predicted:num_visible], hidden[:, num_visible:]
        for layer in self.late_layers:
            hidden = layer(hidden, memory)
        return torch.cat([visible, self._finish_late(hidden)], dim=1)

    def _late_angles(self, position_ids: Tensor) -> Tensor | None:
        """[B, T, w / 2] for rotary decoder layers, else None."""
        if self.masking.late_positions == "table":
            return None
        head_width = self.config.hidden_size // self.config.num_attention_heads
        return angles_of(position_ids, head_width)

    def encode(self, input_ids: Tensor) -> Tensor:
        """[B, T] token ids without [MASK] -> [B, T, h]: what stock RoBERTa computes."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        hidden = self.embed(input_ids, positions)
        for layer in self.layers:
            hidden = layer(hidden)
        return self._finish(hidden)

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """[B, n] ids and their 0-based positions -> [B, n, h], normalised as RoBERTa does."""
        return self._embed(self.word_embeddings(input_ids), position_ids)

    def embed_masks(self, position_ids: Tensor) -> Tensor:
        """[B, m] mask positions -> [B, m, h]: the mask vector and the position embedding."""
        if self.masking.mask_embedding == "separate":
            vector: Tensor = self.mask_embedding
        else:
            vector = self.word_embeddings.weight[self.config.pieces - 1]  # <mask>, the last token
        return self._embed(vector, position_ids)

    def _embed(self, vectors: Tensor, position_ids: Tensor) -> Tensor:
        hidden = vectors + self.position_embeddings(position_ids + PADDING_IDX + 1)
        return F.dropout(self.embedding_norm(hidden), self.config.dropout, self.training)

    def _finish(self, hidden: Tensor) -> Tensor:
        """The encoder's last norm, which finetuning keeps: before the decoder layers, once."""
        return self.final_norm(hidden) if self.config.norm == "pre" else hidden

    def _finish_late(self, hidden: Tensor) -> Tensor:
        return self.late_norm(hidden) if self.config.norm == "pre" else hidden
