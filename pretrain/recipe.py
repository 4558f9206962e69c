"""What decides the result of a run: the groups `masking`, `model` and `optimizer` of its settings.

The text under a field is its `--help`; `config.py` has the groups that say where and how it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from pretrain.errors import PretrainError, require
from pretrain.vocabulary import Vocabulary


@dataclass(kw_only=True)
class MaskingStage:
    """A part of the run with another rate or insertion layer; each costs one compilation."""

    start: float
    """Share of the budget from which on it holds."""
    rate: float | None = None
    """Replaces masking.rate."""
    insert_layer: int | float | None = None
    """Replaces masking.insert_layer."""


@dataclass(kw_only=True)
class MaskingConfig:
    """Corruption and late insertion (paper, section 3)."""

    rate: float = 0.5
    """Share of the tokens of a sequence (special ones apart) that are selected."""
    loss_fraction: float = 1.0
    """Of the selected tokens, the share that is predicted; the others are dropped."""
    masked_share: float = 0.8
    """Of the predicted tokens, the share that becomes a [MASK]."""
    random_share: float = 0.1
    """Of the predicted tokens, the share replaced by a random token; the rest stays as it is."""
    select: Literal["token", "whole_word", "span"] = "token"
    """What is selected at once: tokens, words, or spans of `span_length` tokens on average."""
    span_length: float = 3.0
    """Mean length of a span, geometrically distributed."""
    insert_layer: int | float = 0
    """Encoder layers that run on the visible tokens only; 0 is ordinary masked LM. Between 0 and 1:
    this share of the layers, rounded; at least one, and not all."""
    late_layers: int = 0
    """Extra layers after the encoder, for pretraining only: not exported."""
    late_attention: Literal["self", "cross"] = "self"
    """Of the late layers: self-attention alone, or also attention to the encoder's output."""
    cross_queries: Literal["all", "masked"] = "all"
    """Positions that cross-attention layers compute; `masked`: those alone, and visible tokens are
    predicted before these layers."""
    mask_embedding: Literal["separate", "shared"] = "separate"
    """The [MASK] vector: a parameter of its own, or the row of <mask> in the word embedding."""
    schedule: list[MaskingStage] = field(default_factory=list)
    """Later stages of the run, by rising `start`."""

    def __post_init__(self) -> None:
        for name, rate in [("rate", self.rate)] + [
            (f"schedule: at {stage.start}, rate", stage.rate)
            for stage in self.schedule
            if stage.rate is not None
        ]:
            require(0 < rate < 1, f"masking.{name} is {rate}; it must lie between 0 and 1")
        require(
            0 < self.loss_fraction <= 1,
            f"masking.loss_fraction is {self.loss_fraction}; above 0, at most 1",
        )
        require(
            min(self.masked_share, self.random_share) >= 0
            and self.masked_share + self.random_share <= 1,
            f"masking.masked_share = {self.masked_share} and masking.random_share = "
            f"{self.random_share} must not be negative and may add up to 1 at most",
        )
        for k in [self.insert_layer, *(stage.insert_layer for stage in self.schedule)]:
            require(
                not isinstance(k, float) or 0 < k < 1,
                f"masking.insert_layer is {k}; a whole number of layers, or a share of them "
                "strictly between 0 and 1",
            )
        require(self.span_length >= 1, f"masking.span_length is {self.span_length}; 1 or more")
        require(self.late_layers >= 0, f"masking.late_layers is {self.late_layers}; 0 or more")
        starts = [stage.start for stage in self.schedule]
        require(
            all(0 < start < 1 for start in starts) and starts == sorted(set(starts)),
            f"masking.schedule starts at {starts}; they must rise, between 0 and 1",
        )

    @property
    def insertion_layer(self) -> int:
        """k, the number of layers that run on the visible tokens only."""
        assert isinstance(self.insert_layer, int)  # `with_layers` has made it one
        return self.insert_layer

    def with_layers(self, count: int) -> MaskingConfig:
        """The same for an encoder of `count` layers: shares of them are layers."""

        def layer(k: int | float) -> int:
            if isinstance(k, float):  # a share never is all layers, or none, where there are more
                return min(max(round(k * count), 1), max(count - 1, 1))
            return k

        schedule = [
            stage
            if stage.insert_layer is None
            else replace(stage, insert_layer=layer(stage.insert_layer))
            for stage in self.schedule
        ]
        return replace(self, insert_layer=layer(self.insert_layer), schedule=schedule)

    def at(self, fraction: float) -> MaskingConfig:
        """What holds when `fraction` of the budget is used: this, with the stage's values."""
        current = replace(self, schedule=[])
        for stage in self.schedule:
            if stage.start <= fraction:
                current = replace(
                    current,
                    rate=stage.rate if stage.rate is not None else current.rate,
                    insert_layer=(
                        stage.insert_layer
                        if stage.insert_layer is not None
                        else current.insert_layer
                    ),
                )
        return current

    def stages(self) -> list[MaskingConfig]:
        """Everything that `at` can return, in order."""
        return self.stages_until(1.0)

    def stages_until(self, fraction: float) -> list[MaskingConfig]:
        """Those that have begun when `fraction` of the budget is used, in order."""
        starts = (0.0, *(stage.start for stage in self.schedule))
        return [self.at(start) for start in starts if start <= fraction]


@dataclass(kw_only=True)
class ModelConfig:
    """The encoder; names and defaults (base) are those of Hugging Face's RobertaConfig."""

    architecture: Literal["roberta", "roberta-prelayernorm", "bert", "modernbert"] = "roberta"
    """The encoder, by the model_type of transformers (pretrain/architectures/)."""
    hidden_size: int = 768
    """Width h."""
    num_hidden_layers: int = 12
    """Encoder layers L, late layers not counted."""
    num_attention_heads: int = 12
    """Attention heads per layer."""
    intermediate_size: int = 3072
    """Width of the feed-forward layer; of modernbert, of each of its halves."""
    max_position_embeddings: int = 514
    """Longest sequence, and for roberta(-prelayernorm) 2 more: rows of the position table."""
    global_attn_every_n_layers: int = 3
    """modernbert: every n-th layer from the first on attends to everything; 1: all of them."""
    local_attention: int = 128
    """modernbert: window of the other layers; half of it to each side."""
    global_rope_theta: float = 160_000.0
    """modernbert: base of the rotary frequencies in layers that attend to everything."""
    local_rope_theta: float = 10_000.0
    """modernbert: the same in layers with a window."""
    layer_norm_eps: float | None = None
    """Epsilon of the norms; null: 1e-5, and 1e-12 for bert."""
    dropout: float = 0.1
    """On hidden states and attention weights, in training."""
    initializer_range: float | None = 0.02
    """Standard deviation of the initial weights; null: 1/sqrt(fan-in), for narrow models."""
    tie_word_embeddings: bool = True
    """The head multiplies with the word embedding, or with a matrix of its own."""
    vocab_size: int | None = None
    """Rows of the word embedding: the tokenizer's tokens, or more; null: taken from the data."""
    cls_token_id: int | None = None
    """Id of the token that begins a sequence; null, like the next three: taken from the data."""
    sep_token_id: int | None = None
    """Id of the token that ends a sequence."""
    pad_token_id: int | None = None
    """Id of padding, which pretraining never sees."""
    mask_token_id: int | None = None
    """Id of [MASK]."""

    def __post_init__(self) -> None:
        if self.layer_norm_eps is None:
            self.layer_norm_eps = 1e-12 if self.architecture == "bert" else 1e-5
        if self.vocab_size is not None:
            self._fill_in_token_ids(self.vocab_size)
        for key in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        ):
            require(getattr(self, key) > 0, f"model.{key} is {getattr(self, key)}; 1 or more")
        require(
            self.hidden_size % self.num_attention_heads == 0,
            f"model.hidden_size = {self.hidden_size} is not divisible by "
            f"model.num_attention_heads = {self.num_attention_heads}",
        )
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}; from 0 to below 1")
        if self.architecture == "modernbert":
            self._check_modernbert()
        else:
            self._refuse_keys_of_modernbert()

    def _fill_in_token_ids(self, vocab_size: int) -> None:
        """RoBERTa's where none are given: so had data sets and runs of earlier releases."""
        robertas = Vocabulary.robertas(vocab_size)
        for part in TOKEN_ID_PARTS:
            key = f"{part}_token_id"
            if getattr(self, key) is None:
                setattr(self, key, getattr(robertas, part))
            require(
                0 <= getattr(self, key) < vocab_size,
                f"model.{key} is {getattr(self, key)}; 0 to model.vocab_size - 1 = "
                f"{vocab_size - 1}",
            )

        # Stock RoBERTa counts positions from padding's id + 1 on.
        require(
            not self.architecture.startswith("roberta") or self.pad_token_id == 1,
            f"model.architecture is {self.architecture}, which needs a tokenizer whose padding has "
            f"id 1; it is {self.pad_token_id}. Take bert or modernbert",
        )

    def _check_modernbert(self) -> None:
        require(
            self.hidden_size % (2 * self.num_attention_heads) == 0,
            f"model.hidden_size = {self.hidden_size} over model.num_attention_heads = "
            f"{self.num_attention_heads} must be even: modernbert turns pairs of dimensions",
        )
        for key in ("global_attn_every_n_layers", "local_attention"):
            value = getattr(self, key)
            require(value >= 1, f"model.{key} is {value}; 1 or more")
        for key in ("global_rope_theta", "local_rope_theta"):
            value = getattr(self, key)
            require(value > 0, f"model.{key} is {value}; it must be positive")

    def _refuse_keys_of_modernbert(self) -> None:
        for key, default in _MODERNBERT_DEFAULTS.items():
            require(
                getattr(self, key) == default,
                f"model.{key} is {getattr(self, key)}, which {self.architecture} doesn't have; "
                "leave it out, or set model.architecture to modernbert",
            )

    @property
    def norm_eps(self) -> float:
        """Epsilon of the norms."""
        assert self.layer_norm_eps is not None  # filled in above
        return self.layer_norm_eps

    @property
    def known_vocab_size(self) -> int:
        """V, the vocabulary's size; PretrainError while it is left to the data."""
        if self.vocab_size is None:
            raise PretrainError("model.vocab_size is not set; give --model.vocab_size 50265, say")
        return self.vocab_size

    def token_id(self, part: str) -> int:
        """Id of `cls`, `sep`, `pad` or `mask`; PretrainError while they are left to the data."""
        index = getattr(self, f"{part}_token_id")
        if index is None:
            raise PretrainError(f"model.{part}_token_id is not set, nor is model.vocab_size")
        return int(index)

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding: a multiple of 64, for which matrix products are fastest."""
        return -(-self.known_vocab_size // 64) * 64


TOKEN_ID_PARTS = ("cls", "sep", "pad", "mask")
_MODERNBERT_DEFAULTS = {
    field.name: field.default
    for field in fields(ModelConfig)
    if field.name.startswith(("global_", "local_"))
}


@dataclass(kw_only=True)
class OptimizerConfig:
    """The update rule and its learning rate, which ends at 0 with the budget."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the matrices of the layers, AdamW for all else; not with ZeRO-3."""
    lr: float = 5e-4
    """Peak learning rate, of AdamW."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon, in spectral norm per update."""
    muon_momentum: float = 0.95
    """Muon's momentum (Nesterov's)."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's decay rates (RoBERTa)."""
    eps: float = 1e-6
    """Adam's epsilon (RoBERTa)."""
    weight_decay: float = 0.01
    """Decoupled; not on biases, norms and embeddings of positions."""
    gradient_clipping: float = 0.0
    """Largest global gradient norm; 0 clips nothing (RoBERTa)."""
    warmup: float = 0.06
    """Share of the budget over which the learning rate rises."""
    schedule: Literal["linear", "cosine", "trapezoid"] = "linear"
    """What follows: a straight line or half a cosine down to 0, or a constant rate until `decay`
    begins."""
    decay: float = 0.1
    """trapezoid: share of the budget, its last, over which the rate falls to 0 as 1 - sqrt(x)."""

    def __post_init__(self) -> None:
        for key in ("lr", "muon_lr"):
            require(
                getattr(self, key) > 0,
                f"optimizer.{key} is {getattr(self, key)}; it must be positive",
            )
        require(
            self.gradient_clipping >= 0,
            f"optimizer.gradient_clipping is {self.gradient_clipping}; 0 (off) or more",
        )
        require(
            all(0 <= beta < 1 for beta in self.betas),
            f"optimizer.betas is {list(self.betas)}; each from 0 to below 1",
        )
        # DeepSpeed clips what Muon has made of the gradient, whose norm says nothing.
        require(
            self.name != "muon" or self.gradient_clipping == 0,
            f"optimizer.gradient_clipping is {self.gradient_clipping}, but Muon's updates have a "
            "norm of their own; set it to 0",
        )
        require(0 <= self.warmup < 1, f"optimizer.warmup is {self.warmup}; from 0 to below 1")
        self._check_decay()

    def _check_decay(self) -> None:
        require(0 <= self.decay <= 1, f"optimizer.decay is {self.decay}; from 0 to 1")
        if self.schedule == "trapezoid":
            require(
                self.warmup + self.decay <= 1,
                f"optimizer.warmup = {self.warmup} and optimizer.decay = {self.decay} add up to "
                "more than 1, the whole budget; lower one of them",
            )
        else:
            require(
                self.decay == OptimizerConfig.decay,
                f"optimizer.decay is {self.decay}, which the {self.schedule} schedule doesn't "
                "have; leave it out, or set optimizer.schedule to trapezoid",
            )
