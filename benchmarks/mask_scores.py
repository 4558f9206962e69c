"""Scores of masks against finetuning: a grid of learning rates on one seed, then other seeds.

    python -m benchmarks.mask_scores --model_name_or_path M --data_dir DATA --output_dir OUT

Task by task, in the order of the config: every method and rate on `--grid_seed` into `OUT/grid`,
then each method's best rate (by the dev score of that seed) on `--seed` into `OUT/seeds`, then the
table of `OUT/seeds` so far. The grid's seed may be one of those: its run is taken over, and the
choice then favours both methods a little. Finished jobs are skipped: the same command goes on where
it was stopped.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from finetune.results.cells import best_rates, collect
from finetune.results.runs import read_runs

CONFIG = Path("configs/reproduce/minilm_masks.yaml")


def glue(*words: object) -> None:
    """Run `python -m finetune.glue`; its log goes where ours does."""
    subprocess.run([sys.executable, "-m", "finetune.glue", *map(str, words)], check=True)


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


def main() -> None:
    """Run what isn't finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--grid_seed", type=int, default=1)
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--num_processes", type=int, default=1, help="jobs side by side")
    args = parser.parse_args()
    content = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    shared = ["--config", args.config, "--model_name_or_path", args.model_name_or_path]
    shared += ["--data_dir", args.data_dir, "--disable_tqdm", "true"]
    shared += ["--num_processes", args.num_processes]
    grid, seeds = args.output_dir / "grid", args.output_dir / "seeds"
    for task in content["task_name"]:
        words = [*shared, "--task_name", task]
        glue(*words, "--output_dir", grid, "--seed", args.grid_seed)
        for method, rate in chosen_rates(grid, task).items():
            if args.grid_seed in args.seed:
                take_over(grid, seeds, task, method, rate, args.grid_seed)
            words = [*shared, "--task_name", task, "--method", method, "--learning_rate", rate]
            glue(*words, "--output_dir", seeds, "--seed", *args.seed)
        glue("table", seeds)


if __name__ == "__main__":
    main()
