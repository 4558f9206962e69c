"""Floating-point operations of a recipe, by part: as the paper counts them and as we execute them.

A multiply-add is 2 FLOPs; biases, norms, softmax, GELU and embeddings are ignored, as is usual.
Sliding windows are counted as full attention, since all its products are computed. Numbers are
forward passes of one sequence; training is three times that in every part. The paper's count runs
the last layer at all positions and predicts all that is selected; ours (`executed`) runs the last
layer's queries and feed-forward only at the s predicted positions, for vanilla masked LM as for
late masking, leaves out what `loss_fraction` drops, and pads the vocabulary.

    python -m pretrain.flops --config configs/pretrain/base.yaml [--seq_len 128]
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pretrain.distribution import answer_version

if __name__ == "__main__":
    answer_version(sys.argv[1:])  # before the seconds of imports below

from pretrain.architectures import architecture_of
from pretrain.config_parser import parse_args
from pretrain.errors import PretrainError, exit_with
from pretrain.masking import mask_counts
from pretrain.recipe import MaskingConfig, ModelConfig

TRAINING = 3  # forward 1, backward 2

VANILLA = MaskingConfig(rate=0.15, insert_layer=0, late_layers=0)


def layer_flops(length: float, hidden: int, intermediate: float) -> float:
    """A self-attention layer on `length` tokens: projections, scores and sum, feed-forward."""
    return 8 * length * hidden**2 + 4 * length**2 * hidden + 4 * length * hidden * intermediate


def feed_forward_width(model: ModelConfig) -> float:
    """Width of a feed-forward network without a gate that costs what the model's does.

    With a gate there are three matrices of h x i instead of two.
    """
    gated = architecture_of(model).gated
    return model.intermediate_size * 3 / 2 if gated else model.intermediate_size


def cross_flops(queries: float, keys: float, hidden: int) -> float:
    """What cross-attention of `queries` positions to `keys` tokens adds to a layer."""
    return 4 * (queries + keys) * hidden**2 + 4 * queries * keys * hidden


def final_layer_flops(predicted: int, length: int, hidden: int, intermediate: float) -> float:
    """A self-attention layer on `length` tokens whose output is wanted at `predicted` positions."""
    projections = 4 * (predicted + length) * hidden**2
    return projections + 4 * predicted * length * hidden + 4 * predicted * hidden * intermediate


def head_flops(predicted: float, hidden: int, vocab_size: int) -> float:
    """The MLM head at `predicted` positions."""
    return predicted * (2 * hidden**2 + 2 * hidden * vocab_size)


def paper_flops(model: ModelConfig, masking: MaskingConfig, seq_len: int) -> dict[str, float]:
    """Forward FLOPs of one sequence by part, with the paper's fractional counts."""
    h, f = model.hidden_size, feed_forward_width(model)
    k = masking.insertion_layer
    layers = model.num_hidden_layers
    masked = seq_len * masking.masked_share * masking.rate
    visible = seq_len - masked if k > 0 else seq_len
    if masking.late_attention == "self":
        late = layer_flops(seq_len, h, f)
    else:
        queries = seq_len if masking.cross_queries == "all" else masked
        late = layer_flops(queries, h, f) + cross_flops(queries, seq_len - masked, h)
    return {
        "before insertion": k * layer_flops(visible, h, f),
        "after insertion": (layers - k) * layer_flops(seq_len, h, f),
        "decoder layers": masking.late_layers * late,
        "head": head_flops(masking.rate * seq_len, h, model.known_vocab_size),
    }


def executed_flops(model: ModelConfig, masking: MaskingConfig, seq_len: int) -> dict[str, float]:
    """Forward FLOPs of one sequence by part, as `model.py` runs it, with the rounded counts."""
    h, f = model.hidden_size, feed_forward_width(model)
    k = masking.insertion_layer
    d = masking.late_layers
    layers = model.num_hidden_layers
    counts = mask_counts(masking, seq_len)
    n, s, length = counts.visible, counts.predicted, counts.positions
    whole = layer_flops(length, h, f)
    final = final_layer_flops(s, length, h, f)
    late = (d - 1) * whole + final if d else 0.0
    if masking.late_attention == "cross":
        if masking.cross_queries == "all":
            late += (d - 1) * cross_flops(length, n, h) + cross_flops(s, n, h) if d else 0.0
        else:
            late = d * (layer_flops(counts.masked, h, f) + cross_flops(counts.masked, n, h))
    return {
        "before insertion": k * layer_flops(n, h, f),
        "after insertion": (layers - k) * whole if d else (layers - k - 1) * whole + final,
        "decoder layers": late,
        "head": head_flops(s, h, model.padded_vocab_size),
    }


def training_flops(model: ModelConfig, masking: MaskingConfig, seq_len: int) -> float:
    """FLOPs executed per sequence in training, forward and backward."""
    return TRAINING * sum(executed_flops(model, masking, seq_len).values())


def table(model: ModelConfig, masking: MaskingConfig, seq_len: int) -> str:
    """The parts of this recipe and its ratio to vanilla masking, in both ways of counting."""
    lines = [f"{'MFLOP per token, forward':<26}{'paper':>10}{'executed':>12}"]
    counts = [count(model, masking, seq_len) for count in (paper_flops, executed_flops)]
    for part in counts[0]:
        lines.append(f"{part:<26}" + _row(count[part] / seq_len / 1e6 for count in counts))
    lines.append(f"{'all':<26}" + _row(sum(c.values()) / seq_len / 1e6 for c in counts))
    for rate in (VANILLA.rate, 0.3):  # BERT's and ModernBERT's
        vanilla = replace(VANILLA, rate=rate)
        bases = [count(model, vanilla, seq_len) for count in (paper_flops, executed_flops)]
        for without, skipped in (("", ()), (", no head", ("head",))):
            ratios = []
            for ours, base in zip(counts, bases, strict=True):
                parts = [part for part in ours if part not in skipped]
                ratios.append(sum(ours[p] for p in parts) / sum(base[p] for p in parts))
            lines.append(f"{f'ratio to {100 * rate:g} %{without}':<26}" + _row(ratios))
    return "\n".join(lines)


def _row(values: Iterable[float]) -> str:
    return "".join(f"{value:>{width}.3f}" for value, width in zip(values, (10, 12), strict=True))


def main(argv: Sequence[str]) -> None:
    """Print the table for a config."""
    logging.basicConfig(level=logging.INFO, force=True)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # parse_args has its own
    parser.add_argument("--seq_len", type=int)  # default: the longest that the model takes
    args, rest = parser.parse_known_args(argv)
    try:
        config = parse_args(rest)
        if config.run.init_from:
            # Imported here: without a source no weights need to be read.
            from pretrain.source import Source, settings_of

            name = config.run.init_from
            settings = settings_of(config.model, Source(name).config, name)
            config = replace(config, model=replace(config.model, **settings))
            config.check_layers()
        model = replace(config.model, vocab_size=config.model.vocab_size or 50265)
        longest = architecture_of(model).longest_sequence(model)
        print(table(model, config.masking, args.seq_len or longest))
    except PretrainError as error:
        exit_with(error)


if __name__ == "__main__":
    main(sys.argv[1:])
