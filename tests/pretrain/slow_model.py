"""Late masking as the paper defines it, written out with no code of the model's."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.masking import MaskedBatch
from pretrain.model import LateMaskModel
from tests.pretrain.small_model import VOCAB, in_place


def slow_logits(model: LateMaskModel, batch: MaskedBatch) -> Tensor:
    """[B, T, VOCAB] logits: all positions everywhere; masked ones are no keys before
    `insert_layer`, and their rows are overwritten when they enter.
    """
    ids, is_masked, is_gone = in_place(batch)
    w = dict(model.named_parameters())
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    pre = model.config.architecture == "roberta-prelayernorm"
    is_bert = model.config.architecture == "bert"
    eps = 1e-12 if is_bert else 1e-5
    masking = model.masking

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attention(q: Tensor, k: Tensor, v: Tensor, hidden_keys: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-1, -2) / (width // heads) ** 0.5
        scores = scores.masked_fill(hidden_keys[:, None, None, :], float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    def sublayer(x: Tensor, name: str, compute: Callable[[Tensor], Tensor]) -> Tensor:
        return x + compute(norm(x, name)) if pre else norm(x + compute(x), name)

    def layer(x: Tensor, name: str, hidden_keys: Tensor, memory: Tensor | None = None) -> Tensor:
        def self_attention(x: Tensor) -> Tensor:
            mixed = attention(*linear(x, f"{name}.qkv").split(width, dim=-1), hidden_keys)
            return linear(mixed, f"{name}.attention_output")

        def cross_attention(x: Tensor) -> Tensor:
            assert memory is not None
            key, value = linear(memory, f"{name}.cross_key_value").split(width, dim=-1)
            query = linear(x, f"{name}.cross_query")
            return linear(attention(query, key, value, is_masked | is_gone), f"{name}.cross_output")

        def feed_forward(x: Tensor) -> Tensor:
            return linear(F.gelu(linear(x, f"{name}.intermediate")), f"{name}.output")

        x = sublayer(x, f"{name}.attention_norm", self_attention)
        if memory is not None:
            x = sublayer(x, f"{name}.cross_norm", cross_attention)
        return sublayer(x, f"{name}.output_norm", feed_forward)

    first = 0 if is_bert else 2
    places = w["position_embeddings.weight"][first : first + ids.shape[1]]
    places = places + w["token_type_embeddings.weight"][0]
    x = norm(w["word_embeddings.weight"][ids] + places, "embedding_norm")
    entering = norm(w["mask_embedding"] + places, "embedding_norm").expand_as(x)
    k, depth, d = masking.insert_layer, model.config.num_hidden_layers, masking.late_layers
    for index in range(depth):
        if index == k:
            x = torch.where(is_masked[..., None], entering, x)
        x = layer(x, f"layers.{index}", is_gone | is_masked if index < k else is_gone)
    if pre:
        x = norm(x, "final_norm")
    if d:
        if k == depth:
            x = torch.where(is_masked[..., None], entering, x)
        encoded = x
        cross = masking.late_attention == "cross"
        masked_only = cross and masking.cross_queries == "masked"
        for index in range(d):
            hidden_keys = ~is_masked if masked_only else is_gone
            x = layer(x, f"late_layers.{index}", hidden_keys, encoded if cross else None)
        if pre:
            x = norm(x, "late_norm")
        if masked_only:
            x = torch.where(is_masked[..., None], x, encoded)
    state = norm(F.gelu(linear(x, "head.dense")), "head.norm")
    return (state @ w["word_embeddings.weight"].T + w["head.bias"])[..., :VOCAB]
