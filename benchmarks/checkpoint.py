"""What a checkpoint costs the loop, and the loop itself over the bare step.

    python -m benchmarks.checkpoint [--size base] [--steps 8] [--repeats 3]

One rank, the model of `configs/pretrain/SIZE.yaml`. Interleaved, so that a noisy machine treats all
alike: the engine's step alone on a batch that is there; the whole loop (batch, step, log) without a
save; and with one that begins after the first step and is written beside the others. Writes
`docs/benchmarks/checkpoint-DEVICE.{md,json}`.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.loader import VOCAB, write_shards
from benchmarks.machine import describe
from pretrain.budget import BudgetConfig
from pretrain.config import PretrainConfig
from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.fault_tolerance.watchdog import Watchdog
from pretrain.ranks import Launch, join
from pretrain.session import begin
from pretrain.train import take_step

OUT = Path("docs/benchmarks")
LEARNING_RATE = 1e-4
RECOMMENDED_MINUTES = 15.0  # run.save_minutes


def small_batches(size: str, folder: Path, rows: int) -> PretrainConfig:
    """The size's model and recipe on random sequences, `rows` a step."""
    config = load_config(Path(f"configs/pretrain/{size}.yaml"))
    return replace(
        config,
        data=replace(
            config.data,
            path=str(folder / "data"),
            global_batch_size=rows,
            micro_batch_size=rows,
        ),
        model=replace(config.model, vocab_size=VOCAB),
        budget=BudgetConfig(steps=10**6),
        run=replace(
            config.run,
            output_dir=str(folder / "run"),
            compile=False,
            log_every=1,
            eval_every=10**6,
            save_minutes=1e9,
        ),
    )


class Loop:
    """The run's own loop, a step at a time, and the bare step that it is compared with."""

    def __init__(self, config: PretrainConfig) -> None:
        device = join(Launch(), run="benchmark")
        run = RunFolder(config.run.output_dir)
        run.checkpoints.mkdir(parents=True)
        data = ShardFolder(config.data.path)
        watchdog = Watchdog(rank=0, num_ranks=1, rank_seconds=1e9, hang_seconds=1e9)
        self.session = begin(config, data, run, device, watchdog, checkpoint=None)
        self.saver = self.session.supervisor.saver
        self.batches = self.session.supervisor.steps(self.session.batches)
        self.fixed = next(self.batches)

    def bare(self) -> None:
        """Forward, backward and update on a batch that is there."""
        self.session.engine.forward_backward(self.fixed.micro_batches)
        self.session.engine.update(LEARNING_RATE, skip=False)

    def whole(self) -> None:
        """What `train` does at a step: batch, step, agreement of the ranks, a line in the log."""
        take_step(self.session, next(self.batches))

    def save(self) -> float:
        """Begin a save; seconds for which the loop stands still."""
        before = self.saver.stalled
        self.session.supervisor.begin_save()
        return self.saver.stalled - before


def timed(step: object, count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        step()  # type: ignore[operator]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return seconds


def measure(size: str, rows: int, steps: int, repeats: int, folder: Path) -> dict[str, float]:
    """Medians in seconds, the checkpoint's size, and the shares that follow from them."""
    (folder / "data").mkdir()
    config = small_batches(size, folder, rows)
    write_shards(folder / "data", 10_240, config.model.max_position_embeddings - 2)
    loop = Loop(config)
    timed(loop.bare, 2)
    bare: list[float] = []
    whole: list[float] = []
    saving: list[float] = []
    stalls: list[float] = []
    writing: list[float] = []
    for _ in range(repeats):
        bare += timed(loop.bare, steps)
        whole += timed(loop.whole, steps)
        stalls.append(loop.save())
        begun = time.perf_counter()
        while loop.saver.phase != "idle":
            saving += timed(loop.whole, 1)
        writing.append(time.perf_counter() - begun)
    loop.batches.close()
    loop.session.close()
    (checkpoint,) = list((folder / "run" / "checkpoints").glob("step-*"))[-1:]
    bytes_written = sum(file.stat().st_size for file in checkpoint.iterdir())
    step = statistics.median(whole)
    stalled = statistics.median(stalls[1:] or stalls)
    slower = max(0.0, statistics.median(saving) - step) * len(saving) / repeats
    return {
        "rows": rows,
        "bare_step_seconds": statistics.median(bare),
        "loop_step_seconds": step,
        "loop_overhead": step / statistics.median(bare) - 1,
        "checkpoint_gigabytes": bytes_written / 1e9,
        "first_stall_seconds": stalls[0],
        "stall_seconds": stalled,
        "write_seconds": statistics.median(writing),
        "step_while_writing_seconds": statistics.median(saving),
        "stall_share": stalled / (60 * RECOMMENDED_MINUTES),
        "cost_share": (stalled + slower) / (60 * RECOMMENDED_MINUTES),
    }


def report(size: str, found: dict[str, float]) -> str:
    """As markdown."""
    lines = [
        "# What a checkpoint and the loop cost",
        "",
        f"RoBERTa-{size}, one rank, {found['rows']:.0f} rows a step; "
        f"{describe(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))}.",
        "`python -m benchmarks.checkpoint`; medians.",
        "",
        "| | |",
        "| --- | ---: |",
        f"| the bare step | {found['bare_step_seconds']:.3f} s |",
        f"| the loop's step | {found['loop_step_seconds']:.3f} s |",
        f"| the loop's overhead | {found['loop_overhead']:+.2%} |",
        f"| a checkpoint | {found['checkpoint_gigabytes']:.2f} GB |",
        f"| the loop stands still for | {found['stall_seconds']:.3f} s |",
        f"| at the first one (memory is taken) | {found['first_stall_seconds']:.3f} s |",
        f"| it is complete after | {found['write_seconds']:.1f} s |",
        f"| a step meanwhile | {found['step_while_writing_seconds']:.3f} s |",
        f"| stall, every {RECOMMENDED_MINUTES:.0f} minutes | {found['stall_share']:.3%} |",
        f"| with the slower steps | {found['cost_share']:.3%} |",
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint", description=__doc__)
    parser.add_argument("--size", default="base", help="of configs/pretrain/")
    parser.add_argument("--rows", type=int, default=8, help="rows a step")
    parser.add_argument("--steps", type=int, default=8, help="of each kind, each time")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, force=True)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.size, args.rows, args.steps, args.repeats, Path(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    (OUT / f"checkpoint-{device}.json").write_text(json.dumps(found, indent=1) + "\n")
    (OUT / f"checkpoint-{device}.md").write_text(report(args.size, found))
    print(report(args.size, found))


if __name__ == "__main__":
    main(sys.argv[1:])
