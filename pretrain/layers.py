"""What several architectures share: the blocks of BERT's family, attention, the MLM head.

Letters as in `model.py`. Norms stand after each sublayer (BERT, RoBERTa) or before it
(RoBERTa-PreLayerNorm). Sequences are packed, so nothing masks padding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.recipe import ModelConfig

UNREACHABLE = -1e4  # a logit whose probability is exactly 0, in bf16 too


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    dropout: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Multi-head attention of [B, q, h] on [B, T, h] -> [B, q, h].

    Args:
        query: [B, q, h].
        key: [B, T, h].
        value: [B, T, h].
        num_heads: that share h.
        dropout: of the probabilities.
        mask: [B, 1, q, T] True where a query sees a key; None: everywhere.
    """
    query, key, value = (
        x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return attended.transpose(1, 2).flatten(2)


def project_qkv(
    hidden: Tensor, projection: nn.Linear, last: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of [B, T, h] by one matrix; queries at the last positions only."""
    if last is None:
        query, key, value = projection(hidden).chunk(3, dim=-1)
        return query, key, value
    h, weight, bias = hidden.shape[-1], projection.weight, projection.bias
    query = F.linear(hidden[:, -last:], weight[:h], None if bias is None else bias[:h])
    both = F.linear(hidden, weight[h:], None if bias is None else bias[h:])
    key, value = both.chunk(2, dim=-1)
    return query, key, value


class Block(nn.Module):
    """Self-attention and feed-forward, each with its norm and residual."""

    def __init__(self, config: ModelConfig, *, pre_norm: bool = False) -> None:
        super().__init__()
        h, eps = config.hidden_size, config.norm_eps
        self.num_heads = config.num_attention_heads
        self.pre_norm = pre_norm
        self.dropout = config.dropout
        self.qkv = nn.Linear(h, 3 * h)
        self.attention_output = nn.Linear(h, h)
        self.attention_norm = nn.LayerNorm(h, eps=eps)
        self.intermediate = nn.Linear(h, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, h)
        self.output_norm = nn.LayerNorm(h, eps=eps)

    def forward(self, hidden: Tensor, positions: object = None, last: int | None = None) -> Tensor:
        """[B, T, h] -> [B, T, h], or [B, last, h]: only the last positions are queries."""
        hidden = self._self_attention(hidden, last)
        return self._sublayer(hidden, self.output_norm, self._feed_forward)

    def _self_attention(self, hidden: Tensor, last: int | None) -> Tensor:
        normed = self.attention_norm(hidden) if self.pre_norm else hidden
        query, key, value = project_qkv(normed, self.qkv, last)
        if last is not None:
            hidden = hidden[:, -last:]
        hidden = hidden + self._drop(self.attention_output(self._attend(query, key, value)))
        return hidden if self.pre_norm else self.attention_norm(hidden)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Multi-head attention of [B, q, h] on [B, T, h] -> [B, q, h]."""
        dropout = self.dropout if self.training else 0.0
        return attend(query, key, value, self.num_heads, dropout, mask)

    def _sublayer(
        self, hidden: Tensor, norm: nn.LayerNorm, compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        if self.pre_norm:
            return hidden + self._drop(compute(norm(hidden)))
        return norm(hidden + self._drop(compute(hidden)))

    def _feed_forward(self, hidden: Tensor) -> Tensor:
        return self.output(F.gelu(self.intermediate(hidden)))

    def _drop(self, hidden: Tensor) -> Tensor:
        return F.dropout(hidden, self.dropout, self.training)


class CrossBlock(Block):
    """A late layer that, between its two sublayers, attends to the encoder's output (figure 2)."""

    def __init__(self, config: ModelConfig, *, pre_norm: bool = False) -> None:
        super().__init__(config, pre_norm=pre_norm)
        h = config.hidden_size
        self.cross_query = nn.Linear(h, h)
        self.cross_key_value = nn.Linear(h, 2 * h)
        self.cross_output = nn.Linear(h, h)
        self.cross_norm = nn.LayerNorm(h, eps=config.norm_eps)

    def forward(  # type: ignore[override]
        self, hidden: Tensor, memory: Tensor, last: int | None = None
    ) -> Tensor:
        """[B, T, h] late states, [B, n, h] encoder's output -> [B, T or last, h]."""
        key, value = self.cross_key_value(memory).chunk(2, dim=-1)

        def cross_attend(normed: Tensor) -> Tensor:
            return self.cross_output(self._attend(self.cross_query(normed), key, value))

        hidden = self._self_attention(hidden, last)
        hidden = self._sublayer(hidden, self.cross_norm, cross_attend)
        return self._sublayer(hidden, self.output_norm, self._feed_forward)


class MlmHead(nn.Module):
    """The MLM head: its own bias, and the word embedding as decoder unless untied.

    The vocabulary is padded to a multiple of 64; the bias makes the padding unreachable, so that
    no probability and no gradient ever gets there.
    """

    def __init__(self, config: ModelConfig, *, inner_biases: bool = True) -> None:
        super().__init__()
        h = config.hidden_size
        self.dense = nn.Linear(h, h, bias=inner_biases)
        self.norm = nn.LayerNorm(h, eps=config.norm_eps, bias=inner_biases)
        self.bias = nn.Parameter(torch.full((config.padded_vocab_size,), UNREACHABLE))
        with torch.no_grad():
            self.bias[: config.known_vocab_size] = 0
        if not config.tie_word_embeddings:
            self.decoder = nn.Parameter(torch.zeros(config.padded_vocab_size, h))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., h] -> [..., h]: what is multiplied with the decoder."""
        return self.norm(F.gelu(self.dense(hidden)))
