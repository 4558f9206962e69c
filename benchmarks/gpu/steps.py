"""Training steps, forward to update: our recipes beside Hugging Face's model, in the same process.

A cell is a size and a length; all its variants are timed in turn, in a process that ends with it.
Where the time does not reach for all variants, the cell is measured again by the next call.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.cells import (
    CELLS,
    TINY,
    Cell,
    micro_batch_size,
    precision_of,
    shape_of,
    variants_of,
)
from benchmarks.gpu.records import Records
from benchmarks.gpu.time_limit import TimeLimit, kill, start
from benchmarks.gpu.time_limit import run as run_process
from benchmarks.machine import seconds_of
from benchmarks.step_variants import (
    Variant,
    executed,
    interleaved,
    make_step,
    median_and_spread,
    random_rows,
)
from pretrain.config import RunConfig
from pretrain.recipe import ModelConfig
from pretrain.timing import peak_tflops

logger = logging.getLogger("benchmarks.gpu.steps")

REPEATS, STEPS_AT_ONCE = 15, 2
WRITE_SECONDS = 3.0  # before a cell's process is killed
# Seconds to build a variant, before the first one has told.
FIRST_GUESS = {True: 40.0, False: 4.0}


def missing(records: Records, *, tiny: bool) -> list[Cell]:
    """The cells that no call has measured whole."""
    found = records.get("steps").get("cells", {})
    cells = TINY if tiny else CELLS
    return [cell for cell in cells if not found.get(cell.name, {}).get("complete")]


@contextmanager
def warm_compile_cache(cells: Sequence[Cell], runs_dir: Path) -> Iterator[None]:
    """Compile beside whatever is inside: torch keeps the kernels on disk, where `run` finds them.

    Two processes, so that the memory of the GPU has room for the rest.
    """
    processes = [
        start(
            ["-m", "benchmarks.gpu.steps", "--compile_only", *(cell.name for cell in part)],
            runs_dir / "compile.log",
        )
        for part in (cells[::2], cells[1::2])
        if part
    ]
    try:
        yield
    finally:
        for process in processes:
            kill(process)


def run(records: Records, cell: Cell, limit: TimeLimit, runs_dir: Path) -> None:
    """Measure one cell and keep what was found."""
    file = runs_dir / f"{cell.name}.json"
    file.unlink(missing_ok=True)
    # The clock is the system's, the same in all processes.
    deadline = time.monotonic() + limit.left - WRITE_SECONDS
    command = ["-m", "benchmarks.gpu.steps", cell.name, "--deadline", deadline, "--file", file]
    log = runs_dir / f"{cell.name}.log"
    log.unlink(missing_ok=True)
    code = run_process(command, log, limit)
    if file.exists():
        found = json.loads(file.read_text())
    else:
        reason = "no time" if code is None else f"exit code {code}: {log.read_text()[-1500:]}"
        found = {"complete": False, "error": reason, "variants": []}
    cells = records.get("steps").get("cells", {})
    before = cells.get(cell.name, {})
    if len(found["variants"]) >= len(before.get("variants", [])):
        records.put("steps", {"cells": cells | {cell.name: found}})


def measure(cell: Cell, device: torch.device, deadline: float) -> dict[str, Any]:
    """The cell's record: variants in the order of `variants_of`, as many as the time allows."""
    config, recommended = shape_of(cell)
    batch = micro_batch_size(cell, device)
    rows = random_rows(config, batch, cell.seq_len)
    wanted = variants_of(config, recommended, bf16=device.type == "cuda")
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    guess = dict(FIRST_GUESS) if device.type == "cuda" else {True: 5.0, False: 1.0}
    records: dict[str, dict[str, Any]] = {}
    steps: dict[str, Callable[[], None]] = {}
    # The quick ones first, and what matters most first of the others.
    for variant in sorted(wanted, key=lambda v: (v.compiled, not v.name.startswith("recommended"))):
        round_seconds = STEPS_AT_ONCE * sum(r["first_seconds"] for r in records.values())
        needed = guess[variant.compiled] + 3 * round_seconds
        if steps and time.monotonic() + needed > deadline:
            continue
        begin = time.monotonic()
        held = _allocated(device)
        try:
            step = make_step(variant, config, rows, device, update=True, backend=backend)
            step()
            building = time.monotonic() - begin
            own = _allocated(device) - held
            again, peak = _second_step(step, device)
        except torch.OutOfMemoryError:
            records[variant.name] = {
                "variant": variant.name,
                "error": "out of memory",
                "first_seconds": 0.0,
            }
            gc.collect()
            torch.cuda.empty_cache()
            continue
        guess[variant.compiled] = max(building, 0.5)
        logger.info("%s: %s: built in %.1f s", cell.name, variant.name, building)
        steps[variant.name] = step
        records[variant.name] = {
            "variant": variant.name,
            "precision": precision_of(variant),
            "build_seconds": round(building, 2),
            "first_seconds": again,
            # What the other variants hold is not this one's.
            "peak_gib": None if peak is None else (peak - held) / 2**30,
            "state_gib": None if peak is None else own / 2**30,
        }
    seconds = interleaved(
        list(steps.values()),
        REPEATS,
        device,
        steps_at_once=STEPS_AT_ONCE if device.type == "cuda" else 1,
        deadline=deadline,
    )
    peak_flops = peak_tflops(
        RunConfig(output_dir=""), device, "bf16" if device.type == "cuda" else "fp32"
    )
    by_name = {variant.name: variant for variant in wanted}
    for name, times in zip(steps, seconds, strict=True):
        records[name] |= _speed(by_name[name], config, batch, cell.seq_len, times, peak_flops)
    return {
        "size": cell.size,
        "seq_len": cell.seq_len,
        "micro_batch_size": batch,
        "repeats": min(map(len, seconds)),
        "complete": len(records) == len(wanted),
        "left_out": [variant.name for variant in wanted if variant.name not in records],
        "variants": [records[v.name] for v in wanted if v.name in records],
    }


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _second_step(step: Callable[[], None], device: torch.device) -> tuple[float, int | None]:
    """Seconds, and the most memory allocated during it, that of other variants included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = seconds_of(step, device)
    return seconds, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _speed(
    variant: Variant,
    config: ModelConfig,
    batch: int,
    seq_len: int,
    times: Sequence[float],
    peak: float | None,
) -> dict[str, Any]:
    median, spread = median_and_spread(times)
    tflops = batch * executed(variant, config, seq_len) / median / 1e12
    return {
        "seconds": median,
        "spread": spread,
        "tokens_per_second": batch * seq_len / median,
        "tflops": tflops,
        "mfu": tflops / peak if peak else None,
    }


def compile_only(cells: Sequence[Cell], device: torch.device) -> None:
    """Run each compiled variant once, for the kernels that this leaves on disk."""
    torch.cuda.set_per_process_memory_fraction(0.4, device)
    for cell in cells:
        config, recommended = shape_of(cell)
        rows = random_rows(config, micro_batch_size(cell, device), cell.seq_len)
        for variant in variants_of(config, recommended, bf16=True):
            if variant.compiled:
                make_step(variant, config, rows, device)()
                torch._dynamo.reset()
                gc.collect()
                torch.cuda.empty_cache()


def main(argv: list[str]) -> None:
    """A cell's process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.steps")
    parser.add_argument("cells", nargs="+", help="SIZE-LENGTH; one, but for --compile_only")
    parser.add_argument("--deadline", type=float, default=float("inf"), help="time.monotonic()")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--compile_only", action="store_true")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", force=True)
    logger.setLevel(logging.INFO)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = (name.rpartition("-") for name in args.cells)
    cells = [Cell(size, int(length)) for size, _, length in names]
    if args.compile_only:
        compile_only(cells, device)
        return
    found = json.dumps(measure(cells[0], device, args.deadline), indent=1)
    partial = args.file.with_suffix(".partial")
    partial.write_text(found)
    partial.replace(args.file)


if __name__ == "__main__":
    main(sys.argv[1:])
