"""Tokens per second of a training step: late masking and vanilla, against Hugging Face's RoBERTa.

    python -m benchmarks.step [--repeats 5] [--batch 8] [--seq_len 128] [--size base|demo]

All run forward and backward on the same rows, interleaved so that a noisy machine treats them
alike; the figures are medians over repeats, with their spread, and ratios to Hugging Face's model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import RobertaForMaskedLM

from pretrain.config import MaskingConfig, ModelConfig
from pretrain.convert import to_hf_config
from pretrain.masking import mask_rows
from pretrain.model import LateMaskModel

SIZES = {
    "base": ModelConfig(vocab_size=50265, dropout=0.0),
    "demo": ModelConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        vocab_size=4096,
        dropout=0.0,
    ),
}


def ours(
    model_config: ModelConfig, masking: MaskingConfig, rows: np.ndarray, device: torch.device
) -> Callable[[], None]:
    """One forward and backward pass of our model under `masking`."""
    model = LateMaskModel(model_config, masking).to(device)
    vocab_size = model.word_embeddings.num_embeddings
    batch = mask_rows(
        rows, np.arange(len(rows)), masking=masking, vocab_size=vocab_size, seed=0, epoch=0
    )
    tensors = [torch.from_numpy(array).to(device) for array in batch]

    def step() -> None:
        model.zero_grad()
        (model(*tensors).loss_sum / batch.labels.size).backward()

    return step


def hugging_face(
    model_config: ModelConfig, rows: np.ndarray, device: torch.device
) -> Callable[[], None]:
    """The same for RobertaForMaskedLM at 15 %, as its own examples train it."""
    model = RobertaForMaskedLM(to_hf_config(model_config)).to(device)
    input_ids = torch.from_numpy(rows).to(device)
    labels = input_ids.clone()
    labels[torch.rand(labels.shape, device=device) > 0.15] = -100

    def step() -> None:
        model.zero_grad()
        model(input_ids=input_ids, labels=labels).loss.backward()

    return step


def main() -> None:
    """Print a table of medians, spreads and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq_len", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    config, device = SIZES[args.size], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layers = config.num_hidden_layers
    rows = np.random.default_rng(0).integers(4, 4000, size=(args.batch, args.seq_len))
    late = MaskingConfig(rate=0.5, insert_layer=layers // 2)
    paper = MaskingConfig(rate=0.5, insert_layer=layers, late_layers=2)
    vanilla = MaskingConfig(rate=0.15)
    steps = {
        "Hugging Face, 15 %": hugging_face(config, rows, device),
        "vanilla, 15 %": ours(config, vanilla, rows, device),
        f"late, 50 %, k = {layers // 2}, d = 0": ours(config, late, rows, device),
        f"late, 50 %, k = {layers}, d = 2": ours(config, paper, rows, device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(args.repeats + 2):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - begin)
    print(f"{args.size}, {args.batch} x {args.seq_len}, fp32, eager, {device}")
    print(f"{'forward and backward':<26}{'tokens/s':>10}{'spread':>9}{'ratio':>8}")
    reference = statistics.median(seconds["Hugging Face, 15 %"])
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = (max(times) - min(times)) / median
        speed = args.batch * args.seq_len / median
        print(f"{name:<26}{speed:>10,.0f}{100 * spread:>8.0f}%{reference / median:>8.2f}")


if __name__ == "__main__":
    main()
