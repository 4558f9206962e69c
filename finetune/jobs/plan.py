"""From the flags to jobs: tasks × methods × learning rates × seeds, all input checked first."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from finetune.errors import FinetuneError
from finetune.files import read_json
from finetune.jobs.arguments import (
    Layers,
    config_of,
    make_parser,
    parse,
    resolve,
    task_names,
)
from finetune.jobs.folder import FINISHED, SETTINGS
from finetune.jobs.methods import METHODS
from finetune.jobs.settings import Settings
from finetune.jobs.train import Job
from finetune.tasks import TaskData, load_task
from finetune.tasks.encode import Backbone, EncodedTask, encode_task
from finetune.tasks.kinds import KINDS
from finetune.tasks.metrics import check_metrics

logger = logging.getLogger(__name__)

TOKENS = ".tokens"


@dataclass
class Inputs:
    """The model's configuration and the tasks' rows, read and tokenized once a process."""

    model: str
    settings: dict[tuple[str, str], Settings]
    _backbone: Backbone | None = None
    _outlines: dict[str, PreTrainedModel] = field(default_factory=dict)
    _tasks: dict[str, TaskData] = field(default_factory=dict)
    _encoded: dict[tuple[str, int], EncodedTask] = field(default_factory=dict)

    @property
    def backbone(self) -> Backbone:
        """The encoder that every job begins with."""
        if self._backbone is None:
            self._backbone = Backbone.load(self.model)
        return self._backbone

    def outline(self, kind: str) -> PreTrainedModel:
        """The model for a kind of task, without values: what layers there are."""
        if kind not in self._outlines:
            with torch.device("meta"):
                self._outlines[kind] = KINDS[kind].model.from_config(self.backbone.config)
        return self._outlines[kind]

    def task(self, name: str, settings: Settings) -> TaskData:
        """The rows of one task."""
        key = _rows_key(name, settings)
        if key not in self._tasks:
            glue = settings.glue
            with_test = settings.training["do_predict"]
            data = load_task(name, glue.data_dir, with_test, settings.data)
            data = data.parts(
                glue.max_train_samples, glue.max_eval_samples, glue.max_predict_samples
            )
            logger.info("task %s", data.describe())
            self._tasks[key] = data
        return self._tasks[key]

    def encoded(self, job: Job) -> EncodedTask:
        """The token rows that `job` trains on; from OUT/.tokens if they were made before."""
        settings = self.settings[job.task, job.method]
        key = (_rows_key(job.task, settings), job.max_seq_length)
        if key not in self._encoded:
            data = self.task(job.task, settings)
            cache = settings.output_dir / TOKENS
            if settings.glue.overwrite_cache:
                for file in cache.glob(f"{job.task}-*.npz"):
                    file.unlink(missing_ok=True)
            self._encoded[key] = encode_task(data, self.backbone, job.max_seq_length, cache)
        return self._encoded[key]


def _rows_key(name: str, settings: Settings) -> str:
    """The same for jobs with the same rows: a config may have others for some methods."""
    glue = settings.glue
    parts = (glue.max_train_samples, glue.max_eval_samples, glue.max_predict_samples)
    return repr((name, glue.data_dir, settings.training["do_predict"], settings.data, parts))


@dataclass(frozen=True)
class Plan:
    """The jobs of a command in the order in which they may run: rounds, each after the last."""

    inputs: Inputs
    rounds: list[list[Job]]
    processes: int | None


def make_plan(command: Sequence[str], known: Inputs | None = None) -> Plan:
    """Every job of the command line; FinetuneError for a mistake in flags, files or model.

    `known` are another plan's inputs for the same model and data: they aren't read again.
    """
    parser = make_parser()
    layers = Layers.read(config_of(command), parser)
    first = parse(parser, [*layers.base, *command])
    names = task_names(first)
    for method in first.method:
        if method not in METHODS:
            raise FinetuneError(f"--method {method}: expected some of {', '.join(METHODS)}.")
    cells = {
        (name, method): resolve(parser, layers, command, method, name)
        for name in names
        for method in first.method
    }
    for (name, _), settings in cells.items():
        settings.data.task(name)
    settings = next(iter(cells.values()))
    logger.info("reading %s for %s", ", ".join(names), settings.glue.model_name_or_path)
    inputs = (
        replace(known, settings=cells) if known else Inputs(settings.glue.model_name_or_path, cells)
    )
    for (name, _), settings in cells.items():
        data = inputs.task(name, settings)
        check_metrics(data)
        settings.check_best_model(data.task.metrics)
    inputs.backbone  # noqa: B018 - a wrong model is an error before anything runs
    for (name, method), settings in cells.items():
        chosen = METHODS[method]
        flags = settings.method_flags.get(chosen.flags or "", {})
        chosen.check(inputs.outline(inputs.task(name, settings).task.kind), flags)
    identity = model_identity(inputs.model)
    jobs = [
        job
        for (name, method), settings in cells.items()
        for job in _jobs(name, method, settings, inputs.task(name, settings), identity)
    ]
    rounds = _rounds(jobs)
    _name_starts(jobs)
    return Plan(inputs, rounds, settings.glue.num_processes)


def _jobs(name: str, method: str, settings: Settings, data: TaskData, identity: str) -> list[Job]:
    """A job per learning rate and seed."""
    jobs = []
    for rate in settings.learning_rates:
        for seed in settings.seeds:
            folder = settings.output_dir / name / method
            if len(settings.learning_rates) > 1:
                folder /= f"lr-{rate:g}"
            record = {
                "task": name,
                "kind": data.task.kind,
                "labels": list(data.labels),
                "method": method,
                "seed": seed,
                "model": identity,
                "data": data.sha256,
                **settings.data.deciding(name),
                **settings.deciding(method, rate),
            }
            start = _start(settings, seed)
            if start is not None:
                record["start_from"] = settings.glue.start_from
            jobs.append(
                Job(
                    task=name,
                    method=method,
                    seed=seed,
                    folder=folder / f"seed-{seed}",
                    training=settings.training | {"learning_rate": rate},
                    settings=record,
                    method_flags=settings.method_flags,
                    max_seq_length=settings.glue.max_seq_length,
                    pad_to_max_length=settings.glue.pad_to_max_length,
                    classifier_learning_rate=settings.glue.classifier_learning_rate,
                    start=start,
                )
            )
    return jobs


def _start(settings: Settings, seed: int) -> Path | None:
    """The folder whose encoder a job starts from."""
    given = settings.glue.start_from
    if given is None:
        return None
    if (Path(given) / "config.json").is_file():
        return Path(given)
    return settings.output_dir / given / "finetune" / f"seed-{seed}"


def _name_starts(jobs: list[Job]) -> None:
    """Record in each job which model it starts from: another one makes other results."""
    planned = {job.folder: job.settings for job in jobs}
    for job in jobs:
        if job.start is None:
            continue
        settings = planned.get(job.start)
        file = job.start / SETTINGS
        if settings is None and file.is_file():
            settings = read_json(file)
        if settings is None:
            job.settings["start_model"] = model_identity(str(job.start))
        else:
            text = json.dumps(settings, sort_keys=True, default=str)
            job.settings["start_model"] = hashlib.sha256(text.encode()).hexdigest()


def _rounds(jobs: list[Job]) -> list[list[Job]]:
    """First the jobs that start from the pretrained encoder, then those that need one of them."""
    folders = {job.folder for job in jobs}
    first = [job for job in jobs if job.start is None]
    later = [job for job in jobs if job.start is not None]
    for job in later:
        start = job.start
        assert start is not None
        planned = start in {other.folder for other in first}
        finished = (start / "config.json").is_file() and (
            (start / FINISHED).is_file() or start not in folders
        )
        if not planned and not finished:
            raise FinetuneError(
                f"--start_from for {job.task}, seed {job.seed}: {start} is no finished job. "
                "Run that task with --method finetune, this seed and one learning rate, before or "
                "in the same command; or name a finished job's folder."
            )
    return [part for part in (first, later) if part]


def model_identity(name: str) -> str:
    """SHA-256 of a local folder's weights; the name itself for a model of the Hub."""
    files = sorted(Path(name).glob("*.safetensors")) + sorted(Path(name).glob("*.bin"))
    if not files:
        return name
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
