"""The mean of the weights of several checkpoints of one run, as a Hugging Face directory.

Late checkpoints of a constant learning rate lie around a better point than each of them (Izmailov
et al. 2018): their mean is worth part of a decay, and costs no training.

    python -m pretrain.average runs/NAME OUT --last 5
    python -m pretrain.average runs/NAME/checkpoints/step-00000800 runs/NAME/checkpoints/… OUT
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain.distribution import answer_version

if __name__ == "__main__":
    answer_version(sys.argv[1:])  # before the seconds of imports below

import torch
from torch import Tensor

from pretrain.config_parser import load_config
from pretrain.errors import PretrainError, exit_with
from pretrain.export import refuse_existing, write_folder
from pretrain.fault_tolerance.checkpoint import Checkpoint
from pretrain.fault_tolerance.identity import differences, may_change
from pretrain.fault_tolerance.run_folder import RunFolder, open_checkpoint


def average(checkpoints: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """Full weights by parameter name, fp32: the means, summed in fp64 one parameter at a time."""
    means = {}
    for name, shape in checkpoints[0].state.shapes.items():
        total = torch.zeros(math.prod(shape), dtype=torch.float64)
        for checkpoint in checkpoints:
            total += checkpoint.read("weight", name, 0, total.numel())
        means[name] = (total / len(checkpoints)).float().reshape(shape)
    return means


def find_checkpoints(sources: Sequence[Path], last: int | None) -> list[Checkpoint]:
    """The checkpoints to average, by rising step.

    Args:
        sources: run folders (their newest) or `step-*` folders; with `last` one run folder.
        last: how many of its newest checkpoints.

    Raises:
        PretrainError: fewer than two, one twice, or not of one run.
    """
    if last is None:
        found = [open_checkpoint(source) for source in sources]
    elif len(sources) == 1:
        found = RunFolder(sources[0]).last(last)
    else:
        raise PretrainError(f"--last {last} takes one run folder, {len(sources)} sources are given")
    if len(found) < 2:
        raise PretrainError(
            f"{sources[0]}: a mean needs two checkpoints or more; name them, or a run folder with "
            "--last 2 or more"
        )
    found.sort(key=lambda checkpoint: checkpoint.progress.step)
    _refuse_duplicates(found)
    for other in found[:-1]:
        _refuse_another_run(other, found[-1])
    return found


def _refuse_duplicates(checkpoints: Sequence[Checkpoint]) -> None:
    seen = set()
    for checkpoint in checkpoints:
        path = checkpoint.path.resolve()
        if path in seen:
            raise PretrainError(f"{checkpoint.path} is given twice; each checkpoint counts once")
        seen.add(path)


def _refuse_another_run(other: Checkpoint, newest: Checkpoint) -> None:
    if other.state.shapes != newest.state.shapes:
        names = other.state.shapes | newest.state.shapes
        shapes = [(n, other.state.shapes.get(n), newest.state.shapes.get(n)) for n in names]
        name, here, there = next(entry for entry in shapes if entry[1] != entry[2])
        raise PretrainError(
            f"{other.path} and {newest.path} are of different models: {name} has shape {here} and "
            f"{there}; give checkpoints of one run"
        )
    configs = [load_config(c.run_folder / "config.yaml") for c in (other, newest)]
    changed = differences(*configs)
    if refused := [text for key, text in changed.items() if not may_change(key)]:
        raise PretrainError(
            f"{other.path} and {newest.path} are of runs with different configs:\n  "
            + "\n  ".join(refused)
            + "\ngive checkpoints of one run"
        )


def main(argv: Sequence[str]) -> None:
    """Average and export."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.average", description=__doc__)
    parser.add_argument(
        "sources", type=Path, nargs="+", metavar="SOURCE", help="run folder, or a checkpoint"
    )
    parser.add_argument("folder", type=Path, metavar="OUT", help="new folder to write")
    parser.add_argument("--last", type=int, help="average this many newest checkpoints of SOURCE")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, force=True)
    try:
        refuse_existing(args.folder)
        checkpoints = find_checkpoints(args.sources, args.last)
        steps = [checkpoint.progress.step for checkpoint in checkpoints]
        write_folder(average(checkpoints), checkpoints[-1], args.folder, averaged_steps=steps)
    except PretrainError as error:
        exit_with(error)
    print(f"wrote {args.folder}: the mean of steps {', '.join(map(str, steps))}")


if __name__ == "__main__":
    main(sys.argv[1:])
