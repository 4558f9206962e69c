"""The stages of an experiment: each makes what is missing, with the packages' own commands."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from reproduce.errors import ReproduceError
from reproduce.late_masking.experiment import (
    Experiment,
    Run,
    read_experiment,
    runs_of,
    write_config,
)
from reproduce.late_masking.jobs import ROOT, Job, run_jobs

logger = logging.getLogger(__name__)

CONFIGS = ROOT / "configs" / "reproduce"


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    experiment: Experiment
    output_dir: Path
    corpus: Path
    data_dir: Path | None
    only: list[str] | None
    seeds: list[int] | None
    parallel: int
    page: Path

    @property
    def results(self) -> Path:
        """Folder of the checked-in CSV files."""
        return self.page.with_suffix("")

    def runs(self) -> list[Run]:
        """All runs, or those of the variants and seeds asked for, in order."""
        runs = runs_of(self.experiment, self.output_dir.resolve())
        if unknown_seeds := sorted(set(self.seeds or []) - set(self.experiment.seeds)):
            raise ReproduceError(
                f"--seeds {' '.join(map(str, unknown_seeds))}: not among the experiment's,"
                f" which are {' '.join(map(str, self.experiment.seeds))}"
            )
        runs = [run for run in runs if self.seeds is None or run.seed in self.seeds]
        if self.only is None:
            return runs
        if unknown := [name for name in self.only if name not in self.experiment.variants]:
            raise ReproduceError(
                f"--only {' '.join(unknown)}: no such variant; variants: "
                f"{', '.join(self.experiment.variants)}"
            )
        return [run for name in self.only for run in runs if run.variant == name]

    def finished(self, variants: list[str]) -> Iterator[Run]:
        """The runs of `variants`, in their order; those that aren't finished are named."""
        runs = self.runs()
        for run in (run for variant in variants for run in runs if run.variant == variant):
            if run.finished:
                yield run
            else:
                logger.warning("%s is not pretrained yet: passed over", run.name)

    def launch(self, stage: str, *here: str) -> list[str]:
        """The command of a stage: what brings it into a queue, or this Python with `here`."""
        return self.experiment.launch.get(stage) or [sys.executable, *here]

    def jobs(self, jobs: list[Job]) -> None:
        """Run them."""
        run_jobs(jobs, self.parallel)


def data(options: Options) -> None:
    """Tokenizer and shards from the corpus: `python -m pipeline`."""
    out = options.output_dir.resolve()
    config = copy.deepcopy(options.experiment.corpus) | {"output": str(out / "data")}
    for source in config["sources"]:
        paths = [options.corpus.resolve() / path for path in source.get("paths", [])]
        if missing := [path for path in paths if not path.exists()]:
            raise ReproduceError(f"--corpus {options.corpus}: {missing[0]} is not there")
        source["paths"] = list(map(str, paths))
    out.mkdir(parents=True, exist_ok=True)
    file = out / "corpus.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    command = [*options.launch("data", "-m", "pipeline"), "--config", file]
    run_jobs([Job("data", command, [out / "data" / "manifest.json"], out / "logs/data.log")], 1)


def pretrain(options: Options) -> None:
    """Every variant with every seed: `pretrain/main.py`, or what `launch` names."""
    out = options.output_dir.resolve()
    jobs = []
    for run in options.runs():
        config = write_config(options.experiment, run, out)
        command = [*options.launch("pretrain", "pretrain/main.py"), "--config", config]
        log = out / "logs" / run.variant / f"seed-{run.seed}.log"
        jobs.append(Job(run.name, command, [run.model], log))
    options.jobs(jobs)


def peer(options: Options) -> None:
    """Hugging Face's Trainer on the reference's configs (peer.py)."""
    experiment, out = options.experiment, options.output_dir.resolve()
    jobs = []
    for run in options.runs():
        for start in experiment.peer if run.variant == experiment.reference else []:
            folder = out / "peer" / start / f"seed-{run.seed}"
            config = write_config(experiment, run, out)
            command = [sys.executable, "-m", "reproduce.late_masking.peer", config]
            command += ["--start", start, "--output", folder]
            name, log = f"peer {start}, seed {run.seed}", f"peer-{start}-{run.seed}.log"
            jobs.append(Job(name, command, [folder / "curve.jsonl"], out / "logs" / log))
    options.jobs(jobs)


def downstream(options: Options) -> None:
    """Finetune the exported models: `python -m finetune.glue`, or what `launch` names."""
    plan = options.experiment.downstream
    if not plan.variants or options.data_dir is None:
        return
    out = options.output_dir.resolve()
    config = out / "glue.yaml"
    config.write_text(yaml.safe_dump(plan.glue, sort_keys=False))
    jobs = []
    for run in options.finished(plan.variants):
        folder = out / "downstream" / run.variant / f"seed-{run.seed}"
        command = [*options.launch("downstream", "-m", "finetune.glue"), "--config", config]
        command += ["--model_name_or_path", run.model, "--data_dir", options.data_dir.resolve()]
        command += ["--output_dir", folder]
        makes = [
            folder / task / "finetune" / f"seed-{seed}" / "all_results.json"
            for task in plan.glue["task_name"]
            for seed in plan.glue["seed"]
        ]
        log = out / "logs" / "downstream" / f"{run.variant}-{run.seed}.log"
        jobs.append(Job(f"finetune {run.name}", command, makes, log))
    options.jobs(jobs)


def diagnose(options: Options) -> None:
    """Rank, attention, gradients of the first seed's models (diagnose.py)."""
    from reproduce.late_masking.collect import update
    from reproduce.late_masking.diagnose import diagnose as measure

    records = []
    for run in options.finished(options.experiment.diagnose):
        if run.seed == options.experiment.seeds[0]:
            records += measure(run)
            logger.info("diagnosed %s", run.name)
    options.results.mkdir(parents=True, exist_ok=True)
    update(options.results / "diagnostics.csv", records, list(options.experiment.variants))


def unrun_beside(experiment: Experiment) -> list[Experiment]:
    """The other experiments in configs/reproduce/ that say why they have no results."""
    others = [read_experiment(file) for file in sorted(CONFIGS.glob("late_masking_*.yaml"))]
    return [other for other in others if other.not_run and other != experiment]


def report(options: Options) -> None:
    """The CSV files, as far as there are runs, then the page."""
    from reproduce.late_masking.collect import collect
    from reproduce.late_masking.report import write_report

    collect(options.experiment, options.output_dir.resolve(), options.results)
    options.results.mkdir(parents=True, exist_ok=True)
    write_report(
        options.experiment, unrun_beside(options.experiment), options.results, options.page
    )
    logger.info("wrote %s", options.page)


STAGES: dict[str, Callable[[Options], None]] = {
    "data": data,
    "pretrain": pretrain,
    "peer": peer,
    "downstream": downstream,
    "diagnose": diagnose,
    "report": report,
}
