"""Reproduce late masking: runs, Hugging Face as the peer, finetuning, diagnostics, the record.

    python -m benchmarks.reproduce all --config configs/reproduce/late_masking_small.yaml \\
        --corpus CORPUS --data_dir TASKS --output_dir runs/reproduce [--only ARM …] [--seeds SEED …]

Stages: data, pretrain, peer, downstream, diagnose, report; `all` is all of them in this order. What
is finished is skipped, what was interrupted goes on. The record is docs/reproduction.md with the
CSV files in docs/reproduction/; `report` makes it anew from those where there are no runs.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reproduce.experiment import ReproduceError, read_experiment
from benchmarks.reproduce.stages import STAGES, Options
from finetune.errors import FinetuneError
from pretrain.errors import PretrainError

CONFIG = Path("configs/reproduce/late_masking_small.yaml")


def parse(argv: Sequence[str]) -> tuple[list[str], Options]:
    """The stages asked for, and with what."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--config", type=Path, default=CONFIG, help="the experiment's YAML")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--corpus", type=Path, default=Path("corpora"),
                        help="folder of the files that the config's sources name")  # fmt: skip
    parser.add_argument("--data_dir", type=Path, help="tasks in GLUE's layout (finetune.glue)")
    parser.add_argument("--only", nargs="+", help="these arms alone, in this order")
    parser.add_argument("--seeds", nargs="+", type=int, help="these of the config's seeds alone")
    parser.add_argument("--parallel", type=int, default=1 if shutil.which("nvidia-smi") else 2,
                        help="runs at once, each on its share of the cores (a GPU: 1)")  # fmt: skip
    parser.add_argument("--page", type=Path, default=Path("docs/reproduction.md"),
                        help="the record; its CSV files go to the folder of this name")  # fmt: skip
    values = vars(parser.parse_args(argv))
    stage = values.pop("stage")
    experiment = read_experiment(values.pop("config"))
    stages = list(STAGES) if stage == "all" else [stage]
    # Not only after the hours that pretraining takes.
    if "downstream" in stages and experiment.downstream.arms and values["data_dir"] is None:
        raise ReproduceError("--data_dir is missing: the folder of tasks in GLUE's layout")
    return stages, Options(experiment=experiment, **values)


def main(argv: Sequence[str]) -> int:
    """Run the stages; the exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    try:
        stages, options = parse(argv)
        for stage in stages:
            STAGES[stage](options)
    except (ReproduceError, PretrainError, FinetuneError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
