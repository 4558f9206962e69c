"""RoBERTa's encoder with late [MASK] insertion (Liao et al. 2022, sections 3 and 4).

Letters: B rows, T positions, m holes (masked out), n = T - m visible tokens, s predicted
positions, h width, L encoder layers, d late layers, V vocabulary.

Attention has no order but what the position embeddings say, so the rows of a sequence may stand
in any order. `masking.py` uses that: visible tokens first, then the holes, with the s predicted
positions last. Inserting the [MASK]s is then one concatenation, and "only where something is
predicted" is the slice `[:, -s:]`: no gather, no scatter, no padding mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import MaskingConfig, ModelConfig
from pretrain.loss import linear_cross_entropy

PADDING_IDX = 1  # RoBERTa: the first token of a row has position id PADDING_IDX + 1


class MlmOutput(NamedTuple):
    """What one micro-batch gives: sums over its B * s predicted positions, to be weighted later."""

    loss_sum: Tensor  # [] cross-entropy in nats
    correct: Tensor  # [] positions whose most likely token is the original


class Block(nn.Module):
    """One transformer layer, RoBERTa's (post-norm) or RoBERTa-PreLayerNorm's (pre-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        h, eps = config.hidden_size, config.layer_norm_eps
        self.num_heads = config.num_attention_heads
        self.pre_norm = config.norm == "pre"
        self.dropout = config.dropout
        self.qkv = nn.Linear(h, 3 * h)
        self.attention_output = nn.Linear(h, h)
        self.attention_norm = nn.LayerNorm(h, eps=eps)
        self.intermediate = nn.Linear(h, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, h)
        self.output_norm = nn.LayerNorm(h, eps=eps)

    def forward(self, hidden: Tensor, last: int | None = None) -> Tensor:
        """[B, T, h] -> [B, T, h], or [B, last, h]: only the last rows are computed as queries."""
        residual = hidden if last is None else hidden[:, -last:]
        normed = self.attention_norm(hidden) if self.pre_norm else hidden
        residual = residual + self._drop(self._attend(normed, last))
        if self.pre_norm:
            return residual + self._drop(self._feed_forward(self.output_norm(residual)))
        residual = self.attention_norm(residual)
        return self.output_norm(residual + self._drop(self._feed_forward(residual)))

    def _attend(self, hidden: Tensor, last: int | None) -> Tensor:
        def heads(x: Tensor) -> Tensor:  # [B, T, h] -> [B, heads, T, h / heads]
            return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        if last is None:
            query, key, value = self.qkv(hidden).chunk(3, dim=-1)
        else:
            h = hidden.shape[-1]
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(hidden[:, -last:], weight[:h], bias[:h])
            key, value = F.linear(hidden, weight[h:], bias[h:]).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            heads(query), heads(key), heads(value), dropout_p=self.dropout if self.training else 0.0
        )
        return self.attention_output(attended.transpose(1, 2).flatten(2))

    def _feed_forward(self, hidden: Tensor) -> Tensor:
        return self.output(F.gelu(self.intermediate(hidden)))

    def _drop(self, hidden: Tensor) -> Tensor:
        return F.dropout(hidden, self.dropout, self.training)


class MlmHead(nn.Module):
    """RoBERTa's `lm_head`; its decoder is the word embedding, its bias is its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.pieces))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., h] -> [..., h]: what is multiplied with the word embedding."""
        return self.norm(F.gelu(self.dense(hidden)))


class LateMaskModel(nn.Module):
    """L encoder layers that [MASK]s enter at `insert_layer`, then d late layers, then the head.

    `insert_layer` 0 with no late layers is ordinary masked language modelling. The late layers
    exist for pretraining only: `export.py` leaves them out (paper, figure 2).
    """

    def __init__(self, config: ModelConfig, masking: MaskingConfig) -> None:
        super().__init__()
        self.config, self.masking = config, masking
        self.word_embeddings = nn.Embedding(config.pieces, config.hidden_size)
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings, config.hidden_size, padding_idx=PADDING_IDX
        )
        self.embedding_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.late_layers = nn.ModuleList(Block(config) for _ in range(masking.late_layers))
        if config.norm == "pre":
            self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if masking.mask_embedding == "separate":
            self.mask_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.head = MlmHead(config)

    def forward(self, input_ids: Tensor, position_ids: Tensor, labels: Tensor) -> MlmOutput:
        """Summed cross-entropy of the predicted positions; no [B, s, V] logits ever exist.

        Args:
            input_ids: [B, n] visible tokens (random replacements among them).
            position_ids: [B, T] 0-based places in the sequence: of `input_ids` first, then of
                the m = T - n holes.
            labels: [B, s] original tokens at the last s of these T places.
        """
        hidden = self.predicted_states(input_ids, position_ids, labels.shape[1])
        return MlmOutput(
            *linear_cross_entropy(
                hidden.flatten(0, 1), self.word_embeddings.weight, self.head.bias, labels.flatten()
            )
        )

    def logits(self, input_ids: Tensor, position_ids: Tensor, num_predicted: int) -> Tensor:
        """[B, num_predicted, V] logits of the last places, for looking at; not for training."""
        hidden = self.predicted_states(input_ids, position_ids, num_predicted)
        return F.linear(hidden, self.word_embeddings.weight, self.head.bias)

    def predicted_states(
        self, input_ids: Tensor, position_ids: Tensor, num_predicted: int
    ) -> Tensor:
        """[B, num_predicted, h] head states of the last places; arguments as in `forward`."""
        num_visible = input_ids.shape[1]
        hidden = self.embed(input_ids, position_ids[:, :num_visible])
        for layer in self.layers[: self.masking.insert_layer]:
            hidden = layer(hidden)
        hidden = torch.cat([hidden, self.embed_masks(position_ids[:, num_visible:])], dim=1)
        *rest, final = [*self.layers[self.masking.insert_layer :], *self.late_layers]
        for layer in rest:
            hidden = layer(hidden)
        hidden = final(hidden, last=num_predicted)
        return self.head(self._finish(hidden))

    def encode(self, input_ids: Tensor) -> Tensor:
        """[B, T] token ids without [MASK] -> [B, T, h]: what stock RoBERTa computes."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        hidden = self.embed(input_ids, positions)
        for layer in self.layers:
            hidden = layer(hidden)
        return self._finish(hidden)

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """[B, n] ids and their 0-based places -> [B, n, h], normalised as RoBERTa does."""
        return self._embed(self.word_embeddings(input_ids), position_ids)

    def embed_masks(self, position_ids: Tensor) -> Tensor:
        """[B, m] places of the holes -> [B, m, h]: the mask vector and the position."""
        if self.masking.mask_embedding == "separate":
            vector: Tensor = self.mask_embedding
        else:
            vector = self.word_embeddings.weight[-1]  # <mask> is the last piece
        return self._embed(vector, position_ids)

    def _embed(self, vectors: Tensor, position_ids: Tensor) -> Tensor:
        hidden = vectors + self.position_embeddings(position_ids + PADDING_IDX + 1)
        return F.dropout(self.embedding_norm(hidden), self.config.dropout, self.training)

    def _finish(self, hidden: Tensor) -> Tensor:
        return self.final_norm(hidden) if self.config.norm == "pre" else hidden
