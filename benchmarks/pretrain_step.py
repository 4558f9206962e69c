"""A training step's forward and backward pass: ours in its recipes against Hugging Face's model.

    python -m benchmarks.pretrain_step [--size base modernbert_base] [--seq_len 128 512] [--batch 8]
                                       [--precision auto fp32]

All variants see the same rows, interleaved, so that a noisy machine treats them alike: medians with
the spread between quartiles, tokens/s, FLOP/s (executed ones, `pretrain.flops`), the
share of the machine's measured matrix-product peak, and peak memory, taken in a process for each
variant alone. Writes `docs/benchmarks/pretrain_step-DEVICE.{md,json,png}`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.machine import describe, peak_flops, seconds_of
from benchmarks.pretrain_step_report import REFERENCE, group_of, plot, table
from benchmarks.step_variants import (
    VANILLA,
    Variant,
    executed,
    interleaved,
    make_step,
    median_and_spread,
    random_rows,
)
from pretrain.config_parser import load_config
from pretrain.memory import peak_memory_gib
from pretrain.precision import choose_precision
from pretrain.recipe import MaskingConfig, ModelConfig

logger = logging.getLogger("benchmarks.pretrain_step")

OUT = Path("docs/benchmarks")
SIZES = ("base", "large", "modernbert_base", "modernbert_large")
_NAMES = {True: "bf16", False: "fp32"}


def variants(size: str, bf16: bool) -> tuple[ModelConfig, list[Variant]]:
    """The model of `configs/pretrain/SIZE.yaml`, and what is measured on it."""
    config = load_config(Path(f"configs/pretrain/{size}.yaml"))
    model = replace(config.model, vocab_size=50265, dropout=0.0, max_position_embeddings=514)
    depth = model.num_hidden_layers
    paper = MaskingConfig(rate=0.5, insert_layer=depth, late_layers=2)
    cross = replace(paper, late_attention="cross", cross_queries="masked")
    has_cross = model.architecture != "modernbert"
    only_masks = replace(config.masking, masked_share=1.0, random_share=0.0)
    return model, [
        Variant("Hugging Face, 15 %, fp32, eager", None, False, False),
        *(
            [Variant("Hugging Face, 15 %, bf16 autocast, eager", None, False, True, autocast=True)]
            if bf16
            else []
        ),
        Variant("Hugging Face, 15 %, compiled", None, True, bf16, autocast=bf16),
        Variant("vanilla, 15 %, eager", VANILLA, False, bf16),
        Variant(REFERENCE, VANILLA, True, bf16),
        Variant("vanilla, 50 %", replace(VANILLA, rate=0.5), True, bf16),
        Variant(f"paper: k = {depth}, d = 2, 50 %", paper, True, bf16),
        *(
            [Variant(f"paper, cross-attention: k = {depth}, d = 2, 50 %", cross, True, bf16)]
            if has_cross
            else []
        ),
        Variant(f"recommended (configs/pretrain/{size}.yaml)", config.masking, True, bf16),
        *(
            [Variant("recommended, 100/0/0", only_masks, True, bf16)]
            if only_masks != config.masking
            else []
        ),
    ]


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
    machine: str,
    only: list[str] | None,
    memory: bool,
) -> list[dict[str, object]]:
    """One record a variant: of all, or of vanilla and those whose names contain one of `only`."""
    config, lines = variants(size, bf16)
    if only is not None:
        lines = [v for v in lines if v.name == REFERENCE or any(part in v.name for part in only)]
    rows = random_rows(config, batch, seq_len)
    steps = []
    for variant in lines:
        step = make_step(variant, config, rows, device)
        first = seconds_of(step, device)
        logger.info("%s, %d x %d: %s: first step %.1f s", size, batch, seq_len, variant.name, first)
        step()
        steps.append(step)
    seconds = interleaved(steps, repeats, device)
    peaks = {bf16: peak_flops(device, torch.bfloat16 if bf16 else torch.float32)
             for bf16 in {variant.bf16 for variant in lines}}  # fmt: skip
    records = []
    for variant, times in zip(lines, seconds, strict=True):
        median, spread = median_and_spread(times)
        flops = batch * executed(variant, config, seq_len) / median
        records.append(
            {
                "machine": machine,
                "size": size, "seq_len": seq_len, "batch": batch, "best": _NAMES[bf16],
                "variant": variant.name,
                "precision": _NAMES[variant.bf16],
                "seconds": median, "spread": spread,
                "tokens_per_second": batch * seq_len / median,
                "tflops": flops / 1e12, "share_of_peak": flops / peaks[variant.bf16],
                "flops": batch * executed(variant, config, seq_len),
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
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["base"])
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
        rows = random_rows(config, args.batch, args.seq_len[0])
        print(peak_gib(device, make_step(variant, config, rows, device)))
        return
    machine = describe(device)
    OUT.mkdir(parents=True, exist_ok=True)
    report = OUT / f"pretrain_step-{device.type}"
    # What was measured before, on other machines too, stays in the report.
    before = report.with_suffix(".json")
    records: list[dict] = json.loads(before.read_text())["records"] if before.exists() else []
    for size, seq_len, precision in itertools.product(args.size, args.seq_len, args.precision):
        bf16 = choose_precision(precision, device) == "bf16"
        peaks = {(group_of(r), r["variant"]): r["peak_gib"] for r in records}
        group = (machine, size, seq_len, args.batch, _NAMES[bf16])
        records = [r for r in records if group_of(r) != group]
        records += measure(
            size,
            seq_len,
            args.batch,
            bf16=bf16,
            repeats=args.repeats,
            device=device,
            machine=machine,
            only=args.only,
            memory=not args.no_memory,
        )
        if args.no_memory:
            records = [r | {"peak_gib": peaks.get((group_of(r), r["variant"]))} for r in records]
        records.sort(key=group_of)
        torch._dynamo.reset()
        text = table(records)
        report.with_suffix(".md").write_text(text)
        content = json.dumps({"records": records}, indent=1)
        report.with_suffix(".json").write_text(content + "\n")
        plot(records, report.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
