"""Reproduce late masking: pretrain variants, Hugging Face as the peer, finetune, diagnose, report.

    python -m reproduce late_masking all --config configs/reproduce/late_masking_small.yaml \\
        --corpus CORPUS --data_dir TASKS --output_dir runs/reproduce [--only NAME …] [--seeds N …]

Stages: data, pretrain, peer, downstream, diagnose, report; `all` is all of them in this order. What
is finished is skipped, what was interrupted resumes. The record is docs/reproduction.md with the
CSV files in docs/reproduction/; `report` makes it again from those where there are no runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from finetune.console import CommandParser
from reproduce.errors import ReproduceError
from reproduce.late_masking.experiment import read_experiment
from reproduce.late_masking.stages import STAGES, Options

CONFIG = Path("configs/reproduce/late_masking_small.yaml")


def parse(command: Sequence[str]) -> tuple[list[str], Options]:
    """The stages asked for, and with what."""
    parser = CommandParser(prog="python -m reproduce late_masking", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--config", type=Path, default=CONFIG, help="the experiment's YAML")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--corpus", type=Path, default=Path("corpora"),
                        help="folder of the files that the config's sources name")  # fmt: skip
    parser.add_argument("--data_dir", type=Path, help="tasks in GLUE's layout (finetune.glue)")
    parser.add_argument("--only", nargs="+", help="these variants alone, in this order")
    parser.add_argument("--seeds", nargs="+", type=int, help="these of the config's seeds alone")
    parser.add_argument("--parallel", type=int, default=1 if shutil.which("nvidia-smi") else 2,
                        help="runs at once, each on its share of the cores (a GPU: 1)")  # fmt: skip
    parser.add_argument("--page", type=Path, default=Path("docs/reproduction.md"),
                        help="the record; its CSV files go to the folder of this name")  # fmt: skip
    values = vars(parser.parse_args(command))
    stage = values.pop("stage")
    experiment = read_experiment(values.pop("config"))
    stages = list(STAGES) if stage == "all" else [stage]
    # Not only after the hours that pretraining takes.
    if "downstream" in stages and experiment.downstream.variants and values["data_dir"] is None:
        raise ReproduceError("--data_dir is missing: the folder of tasks in GLUE's layout")
    return stages, Options(experiment=experiment, **values)


def main(command: Sequence[str]) -> None:
    """Run the stages."""
    stages, options = parse(command)
    for stage in stages:
        STAGES[stage](options)
