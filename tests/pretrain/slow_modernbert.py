"""Late masking in a ModernBERT, written out in plain torch with no code of the model's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.masking import MaskedBatch
from pretrain.model import LateMaskModel
from tests.pretrain.small_model import VOCAB, in_place


def slow_logits(model: LateMaskModel, batch: MaskedBatch) -> Tensor:
    """[B, T, VOCAB] logits: all positions everywhere, in reading order; mask positions are no keys
    before `insert_layer`, and their states are overwritten when they enter.
    """
    ids, is_mask, is_dropped = in_place(batch)
    c, w = model.config, dict(model.named_parameters())
    length, width = ids.shape[1], c.hidden_size // c.num_attention_heads
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[name]

    def turned(x: Tensor, theta: float) -> Tensor:
        """Each head's halves as real and imaginary parts, times exp(i p w)."""
        half = width // 2
        frequencies = torch.tensor([theta ** (-2 * j / width) for j in range(half)])
        angle = torch.arange(length)[:, None] * frequencies
        product = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angle)
        return torch.cat([product.real, product.imag], dim=-1)

    def layer(x: Tensor, name: str, hidden_keys: Tensor, slides: bool) -> Tensor:
        first = name == "layers.0"
        normed = x if first else norm(x, f"{name}.attention_norm.weight")
        three = (normed @ w[f"{name}.qkv.weight"].T).split(c.hidden_size, dim=-1)
        q, k, v = (t.unflatten(-1, (-1, width)).transpose(1, 2) for t in three)
        theta = c.local_rope_theta if slides else c.global_rope_theta
        scores = turned(q, theta) @ turned(k, theta).transpose(-1, -2) / width**0.5
        unseen = hidden_keys[:, None, None, :].expand_as(scores)
        if slides:
            unseen = unseen | (distance > c.local_attention // 2)
        # A query that sees nothing (a mask position before it enters) gives whatever.
        weights = scores.masked_fill(unseen, -1e30).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        x = x + mixed @ w[f"{name}.attention_output.weight"].T
        inner = norm(x, f"{name}.output_norm.weight") @ w[f"{name}.intermediate.weight"].T
        half = c.intermediate_size
        gated = F.gelu(inner[..., :half]) * inner[..., half:]
        return x + gated @ w[f"{name}.output.weight"].T

    k, depth, d = model.masking.insert_layer, c.num_hidden_layers, model.masking.late_layers
    x = norm(w["word_embeddings.weight"][ids], "embedding_norm.weight")
    entering = norm(w["mask_embedding"], "embedding_norm.weight") * (w["mask_scale"] if k else 1)
    for index in range(depth):
        if index == k:
            x = torch.where(is_mask[..., None], entering, x)
        hidden_keys = is_dropped | is_mask if index < k else is_dropped
        x = layer(x, f"layers.{index}", hidden_keys, index % c.global_attn_every_n_layers != 0)
    x = norm(x, "final_norm.weight")
    if k == depth:
        x = torch.where(is_mask[..., None], entering, x)
    for index in range(d):
        x = layer(x, f"late_layers.{index}", is_dropped, slides=False)
    if d:
        x = norm(x, "late_norm.weight")
    state = norm(F.gelu(x @ w["head.dense.weight"].T), "head.norm.weight")
    return (state @ w["word_embeddings.weight"].T + w["head.bias"])[..., :VOCAB]
