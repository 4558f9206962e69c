"""A training step's forward and backward pass: ours in its recipes against Hugging Face's RoBERTa.

    python -m benchmarks.pretrain_step [--size base large] [--seq_len 128 512] [--batch 8]
                                       [--precision auto fp32]

All variants see the same rows, interleaved, so that a noisy machine treats them alike: medians with
the spread between quartiles, tokens/s, operations per second (executed ones, `pretrain.flops`), the
share of the machine's measured matrix-product peak, and peak memory, taken in a process for each
variant alone. Writes `docs/benchmarks/pretrain_step-DEVICE.{md,json,png}`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from benchmarks.machine import describe, peak_flops, seconds_of
from benchmarks.pretrain_step_report import REFERENCE, group_of, plot, table
from pretrain.config import load_config
from pretrain.convert import to_hf_config
from pretrain.flops import TRAINING, head_flops, layer_flops, training_flops
from pretrain.initialise import initialise
from pretrain.masking import mask_rows
from pretrain.memory import peak_memory_gib
from pretrain.model import LateMaskModel
from pretrain.precision import choose_precision
from pretrain.recipe import MaskingConfig, ModelConfig

logger = logging.getLogger("benchmarks.pretrain_step")

VANILLA = MaskingConfig(rate=0.15)
OUT = Path("docs/benchmarks")
_NAMES = {True: "bf16", False: "fp32"}


@dataclass(frozen=True)
class Variant:
    """One line of the table; `masking` None is Hugging Face's model, `bf16` its autocast."""

    name: str
    masking: MaskingConfig | None
    compiled: bool
    bf16: bool


def variants(size: str, bf16: bool) -> tuple[ModelConfig, list[Variant]]:
    """The model of `configs/pretrain/SIZE.yaml`, and what is measured on it."""
    config = load_config(Path(f"configs/pretrain/{size}.yaml"))
    model = replace(config.model, vocab_size=50265, dropout=0.0, max_position_embeddings=514)
    depth = model.num_hidden_layers
    paper = MaskingConfig(rate=0.5, insert_layer=depth, late_layers=2)
    cross = replace(paper, late_attention="cross", cross_queries="holes")
    return model, [
        Variant("Hugging Face, 15 %, fp32, eager", None, False, False),
        *([Variant("Hugging Face, 15 %, bf16 autocast, eager", None, False, True)] if bf16 else []),
        Variant("Hugging Face, 15 %, compiled", None, True, bf16),
        Variant("vanilla, 15 %, eager", VANILLA, False, bf16),
        Variant(REFERENCE, VANILLA, True, bf16),
        Variant("vanilla, 50 %", replace(VANILLA, rate=0.5), True, bf16),
        Variant(f"paper: k = {depth}, d = 2, 50 %", paper, True, bf16),
        Variant(f"paper, cross-attention: k = {depth}, d = 2, 50 %", cross, True, bf16),
        Variant(f"recommended (configs/pretrain/{size}.yaml)", config.masking, True, bf16),
    ]


def make_step(
    variant: Variant, config: ModelConfig, rows: np.ndarray, device: torch.device
) -> Callable[[], None]:
    """One forward and backward pass on `rows` [B, T]; gradients are dropped afterwards."""
    model: torch.nn.Module
    if variant.masking is None:
        model = AutoModelForMaskedLM.from_config(to_hf_config(config))
        model.to(device)
        input_ids = torch.from_numpy(rows).to(device)
        labels = input_ids.clone()
        labels[torch.rand(labels.shape, device=device) > VANILLA.rate] = -100
        batch = {"input_ids": input_ids, "labels": labels}

        def loss() -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=variant.bf16):
                return run(**batch).loss

    else:
        model = LateMaskModel(config, variant.masking)
        initialise(model, seed=0)  # with torch's own draw softmax would meet denormal numbers
        model.to(device)
        if variant.bf16:
            model.bfloat16()
        masked = mask_rows(
            rows, np.arange(len(rows)), masking=variant.masking, vocab_size=config.pieces,
            seed=0, epoch=0,
        )  # fmt: skip
        tensors = [torch.from_numpy(array).to(device) for array in masked]

        def loss() -> torch.Tensor:
            return run(*tensors).loss_sum / masked.labels.size

    run = torch.compile(model, dynamic=False) if variant.compiled else model

    def step() -> None:
        loss().backward()
        model.zero_grad()

    return step


def executed(variant: Variant, config: ModelConfig, seq_len: int) -> float:
    """Operations of one row; Hugging Face's head runs at every position."""
    if variant.masking is not None:
        return training_flops(config, variant.masking, seq_len)
    body = config.num_hidden_layers * layer_flops(
        seq_len, config.hidden_size, config.intermediate_size
    )
    return TRAINING * (body + head_flops(seq_len, config.hidden_size, config.pieces))


def peak_gib(device: torch.device, step: Callable[[], None]) -> float:
    """Most memory held over two steps after compiling: of the GPU, or resident in this process."""
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the same for VmHWM
    step()
    step()
    return peak_memory_gib(device)


def measure(
    size: str,
    seq_len: int,
    batch: int,
    bf16: bool,
    repeats: int,
    device: torch.device,
    only: list[str] | None,
    memory: bool,
) -> list[dict[str, object]]:
    """One record a variant: of all, or of vanilla and those whose names contain one of `only`."""
    config, lines = variants(size, bf16)
    if only is not None:
        lines = [v for v in lines if v.name == REFERENCE or any(part in v.name for part in only)]
    rows = np.random.default_rng(0).integers(4, 50000, size=(batch, seq_len))
    rows[:, 0], rows[:, -1] = 0, 2
    steps = []
    for variant in lines:
        step = make_step(variant, config, rows, device)
        first = seconds_of(step, device)
        logger.info("%s, %d x %d: %s: first step %.1f s", size, batch, seq_len, variant.name, first)
        step()
        steps.append(step)
    seconds: list[list[float]] = [[] for _ in lines]
    for _ in range(repeats):
        for times, step in zip(seconds, steps, strict=True):
            times.append(seconds_of(step, device))
    peaks = {bf16: peak_flops(device, torch.bfloat16 if bf16 else torch.float32)
             for bf16 in {variant.bf16 for variant in lines}}  # fmt: skip
    records = []
    for variant, times in zip(lines, seconds, strict=True):
        quartiles = statistics.quantiles(times, n=4)
        flops = batch * executed(variant, config, seq_len) / quartiles[1]
        records.append(
            {
                "size": size, "seq_len": seq_len, "batch": batch, "best": _NAMES[bf16],
                "variant": variant.name,
                "precision": _NAMES[variant.bf16],
                "seconds": quartiles[1], "spread": (quartiles[2] - quartiles[0]) / quartiles[1],
                "tokens_per_second": batch * seq_len / quartiles[1],
                "tflops": flops / 1e12, "share_of_peak": flops / peaks[variant.bf16],
                "operations": batch * executed(variant, config, seq_len),
                "peak_gib": peak_in_own_process(variant.name, size, seq_len, batch, bf16)
                if memory else None,
            }
        )  # fmt: skip
    return records


def peak_in_own_process(name: str, size: str, seq_len: int, batch: int, bf16: bool) -> float:
    """`peak_gib` of the variant called `name`, in a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.pretrain_step", "--memory_of", name]
    command += ["--size", size, "--seq_len", str(seq_len), "--batch", str(batch)]
    command += ["--precision", _NAMES[bf16]]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", nargs="+", choices=("base", "large"), default=["base"])
    parser.add_argument("--seq_len", nargs="+", type=int, default=[128])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--precision", nargs="+", choices=("auto", "bf16", "fp32"), default=["auto"]
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", nargs="+", help="parts of names; vanilla comes along")
    parser.add_argument("--no_memory", action="store_true", help="keep the memory found before")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logger.setLevel(logging.INFO)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.memory_of:
        config, lines = variants(args.size[0], args.precision[0] == "bf16")
        variant = next(v for v in lines if v.name == args.memory_of)
        rows = np.random.default_rng(0).integers(4, 50000, size=(args.batch, args.seq_len[0]))
        print(peak_gib(device, make_step(variant, config, rows, device)))
        return
    machine = describe(device)
    OUT.mkdir(parents=True, exist_ok=True)
    report = OUT / f"pretrain_step-{device.type}"
    found = (
        json.loads(report.with_suffix(".json").read_text())
        if report.with_suffix(".json").exists()
        else {}
    )
    # Other sizes measured on this machine before stay in the report.
    records: list[dict] = found["records"] if found.get("machine") == machine else []
    for size, seq_len, precision in itertools.product(args.size, args.seq_len, args.precision):
        bf16 = choose_precision(precision, device) == "bf16"
        peaks = {(group_of(r), r["variant"]): r["peak_gib"] for r in records}
        records = [r for r in records if group_of(r) != (size, seq_len, args.batch, _NAMES[bf16])]
        records += measure(
            size, seq_len, args.batch, bf16, args.repeats, device, args.only, not args.no_memory
        )
        if args.no_memory:
            records = [r | {"peak_gib": peaks.get((group_of(r), r["variant"]))} for r in records]
        records.sort(key=group_of)
        torch._dynamo.reset()
        text = table(records, machine)
        report.with_suffix(".md").write_text(text)
        content = json.dumps({"machine": machine, "records": records}, indent=1)
        report.with_suffix(".json").write_text(content + "\n")
        plot(records, report.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
