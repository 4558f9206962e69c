"""Scores of masks against finetuning: a grid of learning rates on one seed, then other seeds.

    python -m reproduce scores --model_name_or_path M --data_dir DATA --output_dir OUT

Task by task, in the order of the config: every method and rate on `--grid_seed` into `OUT/grid`,
then each method's best rate (by the dev score of that seed) on `--seed` into `OUT/seeds`, then the
table of `OUT/seeds` so far. The grid's seed may be one of those: its run is taken over, and the
choice then favours both methods a little. Finished jobs are skipped: the same command resumes where
it was stopped.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from finetune.console import CommandParser
from finetune.results.cells import best_rates, collect
from finetune.results.runs import read_runs
from reproduce.errors import ReproduceError

CONFIG = Path("configs/reproduce/minilm_masks.yaml")


def glue(*words: object) -> None:
    """Run `python -m finetune.glue`; its log and its errors go where ours do."""
    command = ["-m", "finetune.glue", *map(str, words)]
    done = subprocess.run([sys.executable, *command], check=False)
    if done.returncode:
        raise ReproduceError(
            f"`python {shlex.join(command)}` ended with exit code {done.returncode}, see above."
        )


def chosen_rates(grid: Path, task: str) -> dict[str, float]:
    """Method → the learning rate with the best dev score of `task`."""
    rates = {}
    for cell in best_rates(collect(grid)):
        if cell.task == task and cell.learning_rate is not None:
            rates[cell.method] = cell.learning_rate
    return rates


def take_over(grid: Path, seeds: Path, task: str, method: str, rate: float, seed: int) -> None:
    """Copy the grid's run of a chosen rate to where the seeds' runs are, unless it is there."""
    (run,) = (
        run
        for run in read_runs(grid)
        if (run.task, run.method, run.learning_rate, run.seed) == (task, method, rate, seed)
    )
    taken = seeds / task / method / run.folder.name
    if not taken.exists():
        whole = taken.with_name(f".{taken.name}")
        shutil.copytree(run.folder, whole, dirs_exist_ok=True)
        whole.rename(taken)


def run_grid(flags: Sequence[object], output_dir: Path, task: str, grid_seed: int) -> None:
    """Every method and rate of `task` on one seed, into `output_dir`/grid."""
    glue(*flags, "--task_name", task, "--output_dir", output_dir / "grid", "--seed", grid_seed)


def run_seeds(
    flags: Sequence[object], output_dir: Path, task: str, grid_seed: int, seeds: Sequence[int]
) -> None:
    """Each method's best rate of the grid on `seeds`, into `output_dir`/seeds."""
    grid, chosen = output_dir / "grid", output_dir / "seeds"
    for method, rate in chosen_rates(grid, task).items():
        if grid_seed in seeds:
            take_over(grid, chosen, task, method, rate, grid_seed)
        words = [*flags, "--task_name", task, "--method", method, "--learning_rate", rate]
        glue(*words, "--output_dir", chosen, "--seed", *seeds)


def make_parser(
    experiment: str, description: str | None, config: Path, grid_seed: int
) -> CommandParser:
    """The flags of an experiment that runs a grid and seeds."""
    parser = CommandParser(prog=f"python -m reproduce {experiment}", description=description)
    parser.add_argument("--config", type=Path, default=config)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--grid_seed", type=int, default=grid_seed)
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--num_processes", type=int, default=1, help="jobs side by side")
    return parser


def glue_flags(args: argparse.Namespace, config: Path) -> list[object]:
    """What every run of `config` is given."""
    return [
        *("--config", config, "--model_name_or_path", args.model_name_or_path),
        *("--data_dir", args.data_dir, "--num_processes", args.num_processes),
        *("--disable_tqdm", "true"),
    ]


def task_names(config: Path) -> list[str]:
    """The tasks of a config, in order."""
    return yaml.safe_load(config.read_text(encoding="utf-8"))["task_name"]


def main(command: Sequence[str]) -> None:
    """Run what isn't finished."""
    args = make_parser("scores", __doc__, CONFIG, grid_seed=1).parse_args(command)
    flags = glue_flags(args, args.config)
    for task in task_names(args.config):
        run_grid(flags, args.output_dir, task, args.grid_seed)
        run_seeds(flags, args.output_dir, task, args.grid_seed, args.seed)
        glue("table", args.output_dir / "seeds")
