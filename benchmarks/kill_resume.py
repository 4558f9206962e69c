"""A job killed with kill -9 at random moments, again and again, against one that was left alone.

    python -m benchmarks.kill_resume [--kills 20] [--seed 0] [--stage 1]

Every other start of a 2-rank job is killed at a random moment before its first step, the others
after a random number of steps, some as soon as a checkpoint is half written: one rank, all of them,
or the launcher, whole or one of its processes. What was not killed must end by itself, and the same
command is given again. In the end losses, weights and moments are compared with those of an
undisturbed run. A first start finds the locks that killed builds of DeepSpeed's extensions leave
behind. Writes `docs/benchmarks/kill_resume.md`.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
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


@dataclass
class Found:
    """What was done to a run, and how it went."""

    starts: list[float] = field(default_factory=list)
    """Seconds from the command to the first step, of those that came as far."""
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By when and what."""
    seconds: list[float] = field(default_factory=list)
    """From each kill until all had ended."""


def kill(run: Run, kind: str, draw: random.Random) -> float:
    """SIGKILL what `kind` says; seconds until all the others had ended by themselves.

    Before there are ranks, the launcher's processes stand in for them.
    """
    while not (launchers := run.launchers()):
        if run.process is None or run.process.poll() is not None:
            raise RuntimeError(f"over before it was killed:\n{run.output[-3000:]}")
    ranks = run.rank_processes()
    if kind == "the launcher":
        victims = launchers if draw.random() < 0.5 else [draw.choice(launchers)]
    else:
        victims = ranks or launchers
        if kind == "one rank":
            victims = [draw.choice(victims)]
    began = time.monotonic()
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    while alive := run.processes():
        if time.monotonic() - began > WITHIN:
            run.stop()
            raise RuntimeError(
                f"{kind} killed ({victims}), but after {WITHIN} s these go on: {alive}\n"
                f"{run.output[-3000:]}"
            )
        time.sleep(0.1)
    seconds = time.monotonic() - began
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


def has_trained(run: Run) -> bool:
    """Whether the last start has logged a step of its own."""
    return " | loss " in run.output


def wait_for_first_step(run: Run) -> float:
    """Seconds until the start that has just begun logs a step of its own."""
    began = time.monotonic()
    run.wait_until(lambda: has_trained(run), "a step")
    return time.monotonic() - began


def torture(
    run: Run,
    kills: int,
    draw: random.Random,
    found: Found,
    environment: Callable[[int], Mapping[str, str]],
) -> None:
    """Start, kill, start again, `kills` times, then let it end."""
    steps = int(run.overrides[run.overrides.index("--budget.steps") + 1])
    for number in range(kills):
        run.start(environment=environment(number))
        kind = KINDS_OF_KILL[number % len(KINDS_OF_KILL)]
        when = "during training"
        if number % 2 == 0:
            moment = time.monotonic() + draw.uniform(0, found.starts[-1])
            # A start may be faster than the last one, and a short run over before the moment.
            while time.monotonic() < moment and not has_trained(run):
                time.sleep(0.01)
            if not has_trained(run):
                when = "during the start"
        else:
            found.starts.append(wait_for_first_step(run))
            reached = max(run.losses(), default=0)
            run.wait_for_step(min(reached + draw.randint(1, steps // kills), steps - 2))
            if number % 4 == 1 and wait_for_half_a_checkpoint(run):
                when = "amid a checkpoint"
        found.seconds.append(kill(run, kind, draw))
        found.kills[when, kind] += 1
        at, ended = max(run.losses(), default=0), found.seconds[-1]
        logger.info(
            "%d: %s %s at step %d; all over after %.1f s", number + 1, kind, when, at, ended
        )
    run.go()


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


def stale_locks(folder: Path) -> dict[str, str]:
    """Where killed builds of all of DeepSpeed's extensions have left their locks, as variables."""
    import deepspeed

    for name in deepspeed.ops.__compatible_ops__:
        (folder / name).mkdir(parents=True)
        (folder / name / "lock").touch()
    return {"TORCH_EXTENSIONS_DIR": str(folder)}


def measure(folder: Path, kills: int, seed: int, stage: int, steps: int) -> Found:
    """Both runs; RuntimeError if they differ in anything."""
    data = write_data(folder / "data")
    options = (
        *("--run.deepspeed_config", ROOT / f"configs/deepspeed/zero{stage}.json"),
        *("--budget.steps", steps, "--run.save_every", 3),
    )
    found = Found()
    whole = Run(data, folder / "whole", *options)
    whole.start()
    found.starts.append(wait_for_first_step(whole))
    logger.info("a start takes %.1f s", found.starts[-1])
    if code := whole.wait(600):
        raise RuntimeError(f"exit code {code} of the undisturbed run:\n{whole.output[-3000:]}")
    run = Run(data, folder / "killed", *options)
    # The first start that is to reach training waits for no build.
    locks = stale_locks(folder / "extensions")
    torture(run, kills, random.Random(seed), found, lambda n: locks if n == 1 else {})
    if different := compare(run, whole):
        raise RuntimeError(f"not equal to the undisturbed run: {', '.join(different[:5])}")
    return found


def report(found: Found, kills: int, seed: int, stage: int, steps: int) -> str:
    """The page."""
    moments = ("during the start", "during training", "amid a checkpoint")
    rows = [
        f"| {kind} | {' | '.join(str(found.kills[when, kind]) for when in moments)} |"
        for kind in KINDS_OF_KILL
    ]
    lines = [
        "# kill -9, again and again",
        "",
        f"A 2-rank run of {steps} steps under ZeRO-{stage}, a checkpoint every 3 steps, was killed",
        f"{kills} times and started again with the same command. Losses, weights and moments are",
        "equal to the bit to those of a run that was left alone. What was not killed itself had",
        f"ended {max(found.seconds):.1f} s later at the latest. A start took "
        f"{min(found.starts):.1f} to {max(found.starts):.1f} s here, from the",
        "command to its first step. The moment of every other kill is drawn from the time that the",
        "start before took, so that most of these hit a start before its first step.",
        "",
        f"| killed | {' | '.join(moments)} |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        "",
        '"The launcher" is the `deepspeed` command, the process that it starts on a node, or both,',
        "by chance. Where a start was hit before there were ranks, the launcher's processes stood",
        "in for them. One start found stale locks of all of DeepSpeed's extensions.",
        "",
        f"`python -m benchmarks.kill_resume --kills {kills} --seed {seed} --stage {stage}`;",
        f"{describe(torch.device('cpu'))}, {os.cpu_count()} processors.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    """Torture a run and write what was done to it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_resume", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--stage", type=int, default=1, help="of ZeRO")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    steps = 10 * args.kills
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.kills, args.seed, args.stage, steps)
    page = report(found, args.kills, args.seed, args.stage, steps)
    (OUT / "kill_resume.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
