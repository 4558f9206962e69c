"""Eleven tasks on one encoder: memory and speed of masks, LoRA adapters and finetuned copies.

    python -m benchmarks.mask_serving [--encoders BERT-base ModernBERT-base] [--repeats 5]

Random weights; masks have 5 % zeros on all blocks but the lowest two; adapters are PEFT's, r = 8 on
queries and values. Masks of ones drop nothing: what they cost is a copy of each weight before its
product, the bound of all masking outside the product. Tasks answer in turn: each for a batch of its
own ("by turns"), or all for the same batch ("every task"). A ratio is the median over rounds of
copies' seconds by the case's, since each round times all cases one after the other. Memory is of a
process of its own per case, after every task has answered once. Writes
`docs/benchmarks/mask_serving-DEVICE.{json,md}`; encoders that were measured before on the same
machine stay there.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import describe, timed
from benchmarks.mask_models import CONFIGS, Server, inputs, make_server, write_masks

logger = logging.getLogger("benchmarks.mask_serving")

OUT = Path("docs/benchmarks")
TASKS = [f"task-{index}" for index in range(11)]
HELD = ("one model", "masks", "LoRA", "copies")
SERVED = ("copies", "masks", "masks of ones", "LoRA")
BY_TURNS = "by turns"
EVERY_TASK = "every task"


def resident_mib() -> float:
    """Resident now, in this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def memory_of(case: str, encoder: str, folder: Path) -> dict:
    """What holding the case's models takes, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.mask_serving", "--encoders", encoder]
    command += ["--held", case, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    held = float(done.stdout.splitlines()[-1])
    logger.info("%s, %s: %.0f MiB", encoder, case, held)
    return {"case": case, "held_mib": held}


def hold(case: str, encoder: str, folder: Path) -> float:
    """MiB that this process has gained once every task has answered."""
    before = resident_mib()
    server = make_server(case, folder, TASKS, encoder)
    server.logits(TASKS, inputs(1, 8))
    return resident_mib() - before


def by_turns(server: Server, rows: dict[str, torch.Tensor]) -> None:
    """A call for each task."""
    for task in TASKS:
        server.logits([task], rows)


def speeds(encoder: str, folder: Path, repeats: int, sizes: list[str]) -> list[dict]:
    """Rows per second of each case, way of asking, and size of a batch."""
    servers = {case: make_server(case, folder, TASKS, encoder) for case in SERVED}
    records = []
    for size in sizes:
        batch, length = map(int, size.split("x"))
        rows = inputs(batch, length)
        for mode in (BY_TURNS, EVERY_TASK):
            steps: dict[str, Callable[[], object]] = {
                case: partial(by_turns, server, rows)
                if mode == BY_TURNS
                else partial(server.logits, TASKS, rows)
                for case, server in servers.items()
            }
            logger.info("%s, %d x %d, %s", encoder, batch, length, mode)
            times = timed(steps, repeats, torch.device("cpu"))
            for case, seconds in times.items():
                ratios = [a / b for a, b in zip(times["copies"], seconds, strict=True)]
                records.append(
                    {
                        "batch": batch,
                        "length": length,
                        "mode": mode,
                        "case": case,
                        "rows_per_s": len(TASKS) * batch / statistics.median(seconds),
                        "of_copies": statistics.median(ratios),
                        "least": min(ratios),
                        "most": max(ratios),
                    }
                )
    return records


def page(found: dict) -> str:
    """The record in Markdown."""
    lines = [
        f"# Serving {len(TASKS)} tasks",
        "",
        f"{found['machine']}. Made by `python -m benchmarks.mask_serving`.",
        "",
    ]
    for encoder, record in found["encoders"].items():
        one = record["memory"][0]["held_mib"]
        lines += [f"## {encoder}", "", "| held | MiB | of one model |", "| --- | ---: | ---: |"]
        for row in record["memory"]:
            mib = row["held_mib"]
            lines.append(f"| {row['case']} | {mib:,.0f} | {mib / one:.2f} |")
        lines += [
            "",
            "Of copies: the median over rounds, in brackets the lowest and the highest.",
            "",
            "| rows × tokens a batch | | rows/s | of copies |",
            "| --- | --- | ---: | ---: |",
        ]
        for row in record["speed"]:
            size = f"{row['batch']} × {row['length']}, {row['mode']}"
            ratio = f"**{row['of_copies']:.2f}** [{row['least']:.2f}, {row['most']:.2f}]"
            ratio = "1" if row["case"] == "copies" else ratio
            lines.append(f"| {size} | {row['case']} | {row['rows_per_s']:.1f} | {ratio} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--sizes", nargs="+", default=["16x64", "8x64", "1x32"], help="rows x tokens of a batch"
    )
    parser.add_argument("--held", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.held:
        print(hold(args.held, args.encoders[0], args.folder))
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    machine = describe(torch.device("cpu"))
    path = OUT / "mask_serving-cpu.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("machine") != machine:
        found = {"machine": machine, "encoders": {}}
    for encoder in args.encoders:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_masks(folder, len(TASKS), encoder)
            found["encoders"][encoder] = {
                "memory": [memory_of(case, encoder, folder) for case in HELD],
                "speed": speeds(encoder, folder, args.repeats, args.sizes),
            }
        OUT.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".md").write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
