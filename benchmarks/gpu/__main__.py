"""Tests, speed and short training runs on one GPU, within a limit of minutes.

    python -m benchmarks.gpu [--minutes 9] [--output_dir DIR] [--runs_dir DIR] [--data SHARDS]

Three parts, each with a share of the time:

    correctness   tests/gpu: bf16 under each ZeRO stage, resume, compilation, memory, attention
    steps         forward, backward and AdamW beside Hugging Face's RobertaForMaskedLM
    curves        late masking against vanilla 15 %, validation loss at equal training time

Each writes its JSON and `report.md` to the output folder as soon as something is known. The same
command continues: what was measured stays, unless --again is given. Training runs resume from
their checkpoints in the runs folder. `--size tiny` tries all of it on a CPU.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from pathlib import Path
from typing import NoReturn

import torch

from benchmarks.gpu import correctness, curves, steps
from benchmarks.gpu.records import Records
from benchmarks.gpu.time_limit import TimeLimit
from benchmarks.machine import describe

OUT = Path("docs/benchmarks")
PARTS = ("correctness", "steps", "curves")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="after which the command ends")
    parser.add_argument(
        "--output_dir", type=Path, help="of the records; default: docs/benchmarks/gpu-NAME"
    )
    parser.add_argument(
        "--runs_dir", type=Path, default=Path("runs/gpu"), help="of data, training runs and logs"
    )
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    parser.add_argument("--data", type=Path, help="shards for the curves, instead of made-up text")
    parser.add_argument(
        "--train_minutes", type=float, help="of each training run; default: 3, tiny: 0.05"
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Measure what is missing; returns the exit code."""
    args = parse(argv)
    limit = TimeLimit(60 * args.minutes)
    cuda = torch.cuda.is_available()
    if not cuda and args.size != "tiny":
        print("error: no CUDA device; --size tiny tries the command on a CPU", file=sys.stderr)
        return 2
    # The same way out as for ctrl-C, so that no process is left behind.
    signal.signal(signal.SIGTERM, _interrupt)
    if not cuda:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of all processes: tiny work, maybe one core
        torch.set_num_threads(1)
    device = torch.device("cuda" if cuda else "cpu")
    name = torch.cuda.get_device_name(device).removeprefix("NVIDIA ") if cuda else "cpu"
    output = args.output_dir or OUT / f"gpu-{re.sub('[^A-Za-z0-9]+', '-', name)}"
    records = Records(output, describe(device), again=set(args.only) if args.again else set())
    tiny = args.size == "tiny"
    runs_dir = args.runs_dir.absolute()
    runs_dir.mkdir(parents=True, exist_ok=True)
    cells = steps.missing(records, tiny=tiny) if "steps" in args.only else []
    with steps.warm_compile_cache(cells if cuda else [], runs_dir):
        if "correctness" in args.only:
            correctness.run(records, limit.share(0.45, at_most=240), runs_dir)
    for number, cell in enumerate(cells):
        # What the curves need is held back.
        share = (0.8 if "curves" in args.only else 1.0) / (len(cells) - number)
        steps.run(records, cell, limit.share(max(share, 0.3), at_most=180), runs_dir)
    if "curves" in args.only:
        if args.again:
            curves.forget(runs_dir)
        minutes = args.train_minutes or (0.05 if tiny else 3.0)
        settings = curves.Settings(minutes, args.data, tiny=tiny, cuda=cuda)
        curves.run(records, settings, limit.share(1.0), runs_dir)
    print(records.report())
    return 0


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
