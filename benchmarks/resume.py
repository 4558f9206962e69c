"""Resuming on other ranks and under every ZeRO stage: how far the losses part from one that ran on.

    python -m benchmarks.resume [--stages 0 1 2 3] [--ranks 2:2 2:1 1:2 2:3] [--steps 20]

A run is interrupted and resumed on as many ranks as before, or on others; a second one resumes
without a break. Both read the same global batches, in the same order. Dropout is off: its noise
belongs to a rank. The table is `docs/benchmarks/resume.md`.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.tiny_run import ROOT, Run, write_data

logger = logging.getLogger("benchmarks.resume")

BREAK = 20
OUT = Path("docs/benchmarks")


def options(stage: int, total: int, optimizer: str) -> tuple[object, ...]:
    """Of every run under this stage."""
    return (
        *("--optimizer.name", optimizer),
        *("--optimizer.gradient_clipping", 0 if optimizer == "muon" else 1),
        *("--run.deepspeed_config", ROOT / f"configs/deepspeed/zero{stage}.json"),
        *("--budget.steps", total, "--run.save_every", BREAK, "--model.dropout", 0),
        *("--run.keep_checkpoints", 99),
    )


def largest_difference(whole: Run, data: Path, folder: Path, ranks: int) -> float:
    """Resume from `whole`'s checkpoint on `ranks` ranks; the largest difference of a loss."""
    shutil.copytree(whole.folder, folder, ignore=shutil.ignore_patterns("hf"))
    expected = whole.losses()
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        if checkpoint.name != f"step-{BREAK:08d}":
            shutil.rmtree(checkpoint)
    broken = Run(data, folder, *whole.overrides, ranks=ranks)
    if "resuming from" not in broken.go():
        raise RuntimeError(f"it began again:\n{broken.output[-3000:]}")
    found = broken.losses()
    if found.keys() != expected.keys():
        raise RuntimeError(f"steps {sorted(found)} instead of {sorted(expected)}")
    return max(abs(found[step] - expected[step]) for step in expected if step > BREAK)


def measure(
    stages: Iterable[int],
    changes: Iterable[str],
    steps: int,
    folder: Path,
    optimizer: str = "adamw",
) -> dict[str, dict[str, float]]:
    """{stage: {"2:1": largest difference}}."""
    data, found = write_data(folder / "data"), {}
    changes = list(changes)
    for stage in stages:
        wholes, row = {}, {}
        for ranks in sorted({change.split(":")[0] for change in changes}):
            settings = options(stage, BREAK + steps, optimizer)
            run = Run(data, folder / f"whole-{stage}-{ranks}", *settings, ranks=int(ranks))
            run.go()
            wholes[ranks] = run
        for change in changes:
            first, then = change.split(":")
            target = folder / f"broken-{stage}-{first}-{then}"
            row[change] = largest_difference(wholes[first], data, target, int(then))
            logger.info("ZeRO-%d, %s ranks: %.3g", stage, change, row[change])
        found[str(stage)] = row
    return found


def table(found: dict[str, dict[str, float]], steps: int) -> str:
    """As markdown."""
    changes = list(next(iter(found.values())))
    lines = [
        "# Resuming on other ranks",
        "",
        f"Largest difference of a loss (nats, of losses near 5) over the {steps} steps after a "
        f"restart at step {BREAK}, against the run",
        "on the first number of ranks that was not broken off. fp32, no dropout; "
        "`python -m benchmarks.resume`.",
        f"{describe(torch.device('cpu'))}.",
        "",
        "| ZeRO | "
        + " | ".join(change.replace(":", " → ") + " ranks" for change in changes)
        + " |",
        "| --- |" + " ---: |" * len(changes),
    ]
    for stage, row in found.items():
        cells = ["0 (equal to the bit)" if v == 0 else f"{v:.1e}" for v in row.values()]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    """Write the table and its figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume", description=__doc__)
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--ranks", nargs="+", default=["2:2", "2:1", "1:2", "2:3"])
    parser.add_argument("--steps", type=int, default=20, help="after the restart")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.stages, args.ranks, args.steps, Path(folder))
    file = OUT / "resume.json"  # stages that were measured before stay
    before = json.loads(file.read_text()) if file.exists() else {}
    found = dict(sorted((before | found).items()))
    file.write_text(json.dumps(found, indent=1) + "\n")
    (OUT / "resume.md").write_text(table(found, args.steps))
    print(table(found, args.steps))


if __name__ == "__main__":
    main(sys.argv[1:])
