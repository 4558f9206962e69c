"""ModernBERT: rotary positions, gated feed-forward networks, sliding windows in most layers.

No linear layer and no norm has a bias. Norms stand before the sublayers; the first attention has
none, since the embedding's serves, and one stands behind the last layer. Every n-th layer attends
to everything, the others to a window of `local_attention` tokens, counted by position: visible
tokens come in any order, and those between two of them may be missing.

[MASK]s that enter after a layer meet a stream that has grown: the norm of the embeddings, which
they get as tokens do, is the last before the end that the stream itself goes through. So a learned
factor for each dimension (`mask_scale`) multiplies them there, as a norm's own weights would. It
did better than one factor for all, and than none (docs/reproduction.md, other small runs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from pretrain.architectures.base import Architecture, Names, refuse_variant
from pretrain.errors import PretrainError
from pretrain.layers import MlmHead, attend, project_qkv
from pretrain.recipe import MaskingConfig, ModelConfig
from pretrain.rotary import Rotation, rotation, turn

CUTOFF_SIGMAS = 2.0  # initial weights farther out are drawn again
_HEAD: Names = {name: name for name in ("head.dense.weight", "head.norm.weight")}
_FULL: Literal["full_attention"] = "full_attention"
_SLIDING: Literal["sliding_attention"] = "sliding_attention"


class AttentionPositions(NamedTuple):
    """What attention knows of the positions of its inputs."""

    full: Rotation
    sliding: Rotation | None  # None where no layer has a window
    window: Tensor | None  # [B, 1, T, T] True where a query sees a key; None: everywhere


class ModernBertLayer(nn.Module):
    """Self-attention and a gated feed-forward network, each behind its norm."""

    def __init__(self, config: ModelConfig, *, has_attention_norm: bool, slides: bool) -> None:
        super().__init__()
        h, width, eps = config.hidden_size, config.intermediate_size, config.norm_eps
        self.num_heads = config.num_attention_heads
        self.dropout = config.dropout
        self.slides = slides
        self.attention_norm = (
            nn.LayerNorm(h, eps=eps, bias=False) if has_attention_norm else nn.Identity()
        )
        self.qkv = nn.Linear(h, 3 * h, bias=False)
        self.attention_output = nn.Linear(h, h, bias=False)
        self.output_norm = nn.LayerNorm(h, eps=eps, bias=False)
        self.intermediate = nn.Linear(h, 2 * width, bias=False)  # what goes through GELU, the gate
        self.output = nn.Linear(width, h, bias=False)

    def forward(
        self, hidden: Tensor, positions: AttentionPositions, last: int | None = None
    ) -> Tensor:
        """[B, T, h] -> [B, T, h], or [B, last, h]: only the last positions are queries."""
        turned_by = positions.sliding if self.slides else positions.full
        mask = positions.window if self.slides else None
        assert turned_by is not None  # attention_positions has made that of every kind of layer
        normed = self.attention_norm(hidden)
        if last is None:
            h = hidden.shape[-1]
            query_key, value = self.qkv(normed).split([2 * h, h], dim=-1)
            query, key = turn(query_key, turned_by).chunk(2, dim=-1)
        else:
            query, key, value = project_qkv(normed, self.qkv, last)
            query, key = turn(query, turned_by.last(last)), turn(key, turned_by)
            hidden = hidden[:, -last:]
            mask = None if mask is None else mask[:, :, -last:]
        attended = self._attend(query, key, value, mask)
        hidden = hidden + self._drop(self.attention_output(attended))
        activated, gate = self.intermediate(self.output_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.output(self._drop(F.gelu(activated) * gate))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return attend(query, key, value, self.num_heads, dropout, mask)

    def _drop(self, hidden: Tensor) -> Tensor:
        return F.dropout(hidden, self.dropout, self.training)


class ModernBert(Architecture):
    """ModernBERT; its dropout, where there is any, is the same wherever the stock model has one."""

    name = "modernbert"
    title = "ModernBERT"
    prefix = "model."
    has_position_table = False
    gated = True
    scales_masks = True
    head_bias = ("decoder.bias",)
    head_decoder = "decoder.weight"
    head_names = _HEAD

    def embedding_modules(self, config: ModelConfig) -> dict[str, nn.Module]:
        """A norm."""
        return {"embedding_norm": nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=False)}

    def embed(
        self, modules: Mapping[str, nn.Module], vectors: Tensor, position_ids: Tensor
    ) -> Tensor:
        """The normalised words, alike at all positions."""
        return modules["embedding_norm"](vectors).expand(*position_ids.shape, -1)

    def make_layer(self, config: ModelConfig, index: int) -> nn.Module:
        """The first has no norm before its attention; every n-th has no window."""
        slides = index % config.global_attn_every_n_layers != 0
        return ModernBertLayer(config, has_attention_norm=index > 0, slides=slides)

    def make_decoder_layer(self, config: ModelConfig, masking: MaskingConfig) -> nn.Module:
        """Without a window."""
        return ModernBertLayer(config, has_attention_norm=True, slides=False)

    def make_final_norm(self, config: ModelConfig) -> nn.Module:
        """The stock model's `final_norm`."""
        return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=False)

    def make_head(self, config: ModelConfig) -> MlmHead:
        """Its only bias is that over the vocabulary."""
        return MlmHead(config, inner_biases=False)

    def attention_positions(
        self, config: ModelConfig, position_ids: Tensor, sequence_length: int | None
    ) -> AttentionPositions:
        """Rotations of both kinds of layers, and the window unless it holds the whole sequence."""
        width = config.hidden_size // config.num_attention_heads
        full = rotation(position_ids, width, config.global_rope_theta)
        if min(config.global_attn_every_n_layers, config.num_hidden_layers) == 1:
            return AttentionPositions(full, None, None)
        sliding = rotation(position_ids, width, config.local_rope_theta)
        reach = config.local_attention // 2
        if sequence_length is not None and reach >= sequence_length - 1:
            return AttentionPositions(full, sliding, None)
        distance = (position_ids[:, :, None] - position_ids[:, None, :]).abs()
        return AttentionPositions(full, sliding, (distance <= reach)[:, None])

    def draw(self, weight: Tensor, std: float, generator: torch.Generator) -> None:
        """A normal distribution cut off at two of its standard deviations."""
        reach = CUTOFF_SIGMAS * std
        nn.init.trunc_normal_(weight, std=std, a=-reach, b=reach, generator=generator)

    def weight_scale(self, name: str, config: ModelConfig) -> float:
        """1/sqrt(2 L) for what is added to the stream, and the head, as in the stock model."""
        is_output = name.endswith(("attention_output", ".output")) or name == "head.dense"
        return 1 / math.sqrt(2 * config.num_hidden_layers) if is_output else 1.0

    def to_stock_config(self, config: ModelConfig) -> PreTrainedConfig:
        """ModernBertConfig, with the keys of transformers 4.48 and of 5."""
        every = config.global_attn_every_n_layers
        stock = ModernBertConfig(
            vocab_size=config.known_vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
            norm_eps=config.norm_eps,
            embedding_dropout=config.dropout,
            attention_dropout=config.dropout,
            mlp_dropout=config.dropout,
            classifier_dropout=config.dropout,
            # New heads are drawn with this: 0.02 would silence those of a narrow model.
            initializer_range=config.initializer_range or config.hidden_size**-0.5,
            initializer_cutoff_factor=CUTOFF_SIGMAS,
            local_attention=config.local_attention,
            layer_types=[
                _SLIDING if index % every else _FULL for index in range(config.num_hidden_layers)
            ],
            rope_parameters={
                _FULL: {"rope_type": "default", "rope_theta": config.global_rope_theta},
                _SLIDING: {"rope_type": "default", "rope_theta": config.local_rope_theta},
            },
            tie_word_embeddings=config.tie_word_embeddings,
            bos_token_id=config.token_id("cls"),
            cls_token_id=config.token_id("cls"),
            pad_token_id=config.token_id("pad"),
            eos_token_id=config.token_id("sep"),
            sep_token_id=config.token_id("sep"),
        )
        # Of transformers 4, where they are all that is read.
        stock.global_attn_every_n_layers = every
        stock.global_rope_theta = config.global_rope_theta
        stock.local_rope_theta = config.local_rope_theta
        return stock

    def from_stock_config(self, config: Any) -> ModelConfig:
        """Of ModernBertConfig as transformers 5 has it, which reads files of 4, too."""
        refuse_variant(
            config,
            hidden_activation="gelu",
            classifier_activation="gelu",
            norm_bias=False,
            attention_bias=False,
            mlp_bias=False,
            classifier_bias=False,
            decoder_bias=True,
        )
        thetas = {}
        for kind in (_FULL, _SLIDING):
            rotary = config.rope_parameters[kind]
            if rotary["rope_type"] != "default":
                raise PretrainError(
                    f"modernbert with rope_type = {rotary['rope_type']!r} can't be read; "
                    "'default' can"
                )
            thetas[kind] = float(rotary["rope_theta"])
        return ModelConfig(
            architecture="modernbert",
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
            layer_norm_eps=config.norm_eps,
            global_attn_every_n_layers=_period(config),
            local_attention=config.local_attention,
            global_rope_theta=thetas[_FULL],
            local_rope_theta=thetas[_SLIDING],
            dropout=config.mlp_dropout,
            initializer_range=config.initializer_range,
            tie_word_embeddings=config.tie_word_embeddings,
            vocab_size=config.vocab_size,
            cls_token_id=config.cls_token_id,
            sep_token_id=config.sep_token_id,
            pad_token_id=config.pad_token_id,
        )

    def make_stock_encoder(self, config: Any) -> PreTrainedModel:
        """ModernBertModel."""
        return ModernBertModel(config)

    def make_stock_masked_lm(self, config: Any) -> PreTrainedModel:
        """ModernBertForMaskedLM."""
        return ModernBertForMaskedLM(config)

    def encoder_names(self, config: ModelConfig) -> Names:
        """One to one: queries, keys and values are one matrix in the stock model, too."""
        names: Names = {
            "word_embeddings.weight": "embeddings.tok_embeddings.weight",
            "embedding_norm.weight": "embeddings.norm.weight",
            "final_norm.weight": "final_norm.weight",
        }
        modules = {
            "attention_norm": "attn_norm",
            "qkv": "attn.Wqkv",
            "attention_output": "attn.Wo",
            "output_norm": "mlp_norm",
            "intermediate": "mlp.Wi",
            "output": "mlp.Wo",
        }
        for index in range(config.num_hidden_layers):
            for ours, theirs in modules.items():
                names[f"layers.{index}.{ours}.weight"] = f"layers.{index}.{theirs}.weight"
        del names["layers.0.attention_norm.weight"]
        return names


def _period(config: Any) -> int:
    """n where every n-th layer, from the first on, attends to everything; if the config names one
    that fits, like those of transformers 4, it is taken.

    Raises:
        PretrainError: another pattern.
    """
    layer_types = config.layer_types
    named = getattr(config, "global_attn_every_n_layers", 1)
    for period in (named, *range(1, len(layer_types) + 1)):
        if layer_types == [_SLIDING if i % period else _FULL for i in range(len(layer_types))]:
            return period
    full = [index for index, kind in enumerate(layer_types) if kind == _FULL]
    raise PretrainError(
        f"modernbert whose layers {full} of {len(layer_types)} have full attention can't be read; "
        "every n-th from layer 0 on can"
    )
