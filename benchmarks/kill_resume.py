"""A job killed with kill -9 at random moments, again and again, against one that was left alone.

    python -m benchmarks.kill_resume [--kills 20] [--seed 0] [--stage 2]

Each start of a 2-rank job is killed after a random number of steps: one rank, all of them, or the
launcher, every other time as soon as a checkpoint is half written. Then the same command is given
again. In the end losses, weights and moments are compared with those of an undisturbed run. Writes
`docs/benchmarks/kill_resume.md`.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from benchmarks.machine import describe
from benchmarks.tiny_run import ROOT, Run, write_data
from pretrain.fault_tolerance.run_folder import open_checkpoint

logger = logging.getLogger("benchmarks.kill_resume")

KINDS_OF_KILL = ("one rank", "all ranks", "the launcher")
WITHIN = 60.0  # seconds in which the rest must have ended by itself
OUT = Path("docs/benchmarks")


def kill(run: Run, kind: str, draw: random.Random) -> float:
    """SIGKILL what `kind` says; seconds until all the others had ended by themselves."""
    ranks, launchers = run.rank_processes(), run.launchers()
    victims = {
        "one rank": [draw.choice(ranks)],
        "all ranks": ranks,
        "the launcher": launchers,
    }[kind]
    began = time.monotonic()
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    _, alive = psutil.wait_procs([*ranks, *launchers], timeout=WITHIN)
    seconds = time.monotonic() - began
    if alive:
        raise RuntimeError(f"{kind} killed, but after {WITHIN} s these go on: {alive}")
    run.wait()
    return seconds


def wait_for_half_a_checkpoint(run: Run, seconds: float = 20) -> bool:
    """Until a folder of an unfinished checkpoint is seen; False if none came."""
    deadline = time.monotonic() + seconds
    assert run.process is not None
    while time.monotonic() < deadline and run.process.poll() is None:
        if any((run.folder / "checkpoints").glob(".step-*.partial")):
            return True
        time.sleep(0.0005)
    return False


def torture(run: Run, kills: int, seed: int) -> Counter[str]:
    """Start, kill, start again, `kills` times, then let it end; what was killed, and how often."""
    draw, done = random.Random(seed), Counter[str]()
    steps = int(run.overrides[run.overrides.index("--budget.steps") + 1])
    for number in range(kills):
        run.start()
        kind = KINDS_OF_KILL[number % len(KINDS_OF_KILL)]
        reached = max(run.losses(), default=0)
        run.wait_for_step(min(reached + draw.randint(1, max(1, steps // kills)), steps - 2))
        if number % 2 and wait_for_half_a_checkpoint(run):
            done["amid a checkpoint"] += 1
        seconds = kill(run, kind, draw)
        done[kind] += 1
        at = max(run.losses(), default=0)
        logger.info("%d: %s at step %d; all over after %.1f s", number + 1, kind, at, seconds)
    run.go()
    return done


def compare(run: Run, whole: Run) -> list[str]:
    """What differs between two finished runs; empty if they are equal to the bit."""
    found = []
    if run.losses() != whole.losses():
        found.append("losses")
    ours, theirs = (open_checkpoint(folder) for folder in (run.folder, whole.folder))
    for name, shape in theirs.state.shapes.items():
        for kind in theirs.kinds(name):
            a, b = (c.read(kind, name, 0, math.prod(shape)) for c in (ours, theirs))
            if not torch.equal(a, b):
                found.append(f"{kind} of {name}")
    return found


def measure(folder: Path, kills: int, seed: int, stage: int, steps: int) -> Counter[str]:
    """Both runs; RuntimeError if they differ in anything."""
    data = write_data(folder / "data")
    options = (
        *("--run.deepspeed_config", ROOT / f"configs/deepspeed/zero{stage}.json"),
        *("--budget.steps", steps, "--run.save_every", 3),
    )
    whole = Run(data, folder / "whole", *options)
    whole.go()
    run = Run(data, folder / "killed", *options)
    done = torture(run, kills, seed)
    if different := compare(run, whole):
        raise RuntimeError(f"not equal to the undisturbed run: {', '.join(different[:5])}")
    return done


def main(argv: list[str]) -> None:
    """Torture a run and write what was done to it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_resume", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--stage", type=int, default=2, help="of ZeRO")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    steps = 6 * args.kills
    with tempfile.TemporaryDirectory() as folder:
        done = measure(Path(folder), args.kills, args.seed, args.stage, steps)
    lines = [
        "# kill -9, again and again",
        "",
        f"A 2-rank run of {steps} steps under ZeRO-{args.stage}, a checkpoint every 3 steps, was",
        f"killed {args.kills} times and started again with the same command: losses, weights and",
        "moments are equal to the bit to those of a run that was left alone.",
        f"`python -m benchmarks.kill_resume --kills {args.kills}`; "
        f"{describe(torch.device('cpu'))}.",
        "",
        "| killed | times |",
        "| --- | ---: |",
        *(f"| {kind} | {count} |" for kind, count in done.items()),
    ]
    (OUT / "kill_resume.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
