"""The runs behind a figure: trained by `finetune.glue`'s own plan and sweep, or finished before."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from transformers import PreTrainedModel

from finetune.errors import FinetuneError
from finetune.files import read_json
from finetune.jobs.folder import FINISHED
from finetune.jobs.load import load_model
from finetune.jobs.plan import Inputs, Plan, make_plan
from finetune.jobs.sweep import run_sweep
from finetune.jobs.train import Job
from finetune.results.runs import Run
from finetune.tasks.encode import EncodedTask

# What a figure reads again and so has to agree with what a finished run has seen.
READ_AGAIN = ("labels", "max_seq_length", "max_eval_samples")


@dataclass(frozen=True)
class Runs:
    """Finished runs by task, method and seed, and the rows they were trained and judged on."""

    inputs: Inputs
    jobs: dict[tuple[str, str, int], Job]

    @property
    def tasks(self) -> list[str]:
        """In the order in which they were asked for."""
        return list(dict.fromkeys(task for task, _, _ in self.jobs))

    @property
    def seeds(self) -> list[int]:
        """In the order in which they were asked for."""
        return list(dict.fromkeys(seed for _, _, seed in self.jobs))

    def rows(self, task: str) -> EncodedTask:
        """The token rows of `task`."""
        return self.inputs.encoded(next(job for key, job in self.jobs.items() if key[0] == task))

    def model(self, task: str, method: str, seed: int) -> PreTrainedModel:
        """The run's model; a mask is merged into the backbone, whose weights have to be its own."""
        return load_model(self.jobs[task, method, seed].folder, self.inputs.model)

    def identity(self, task: str, method: str, seed: int) -> str:
        """Hash of what the run was asked for and what it found: another training, another hash."""
        folder = self.jobs[task, method, seed].folder
        text = (folder / "job.json").read_bytes() + (folder / FINISHED).read_bytes()
        return hashlib.sha256(text).hexdigest()

    def seen(self, task: str) -> dict[str, object]:
        """What decides the rows of `task`, for the identity of a part (`parts.once`)."""
        found = next(job for key, job in self.jobs.items() if key[0] == task)
        names = ("data", "max_seq_length", "max_train_samples", "max_eval_samples")
        return {name: found.settings.get(name) for name in names}

    @property
    def setting(self) -> str:
        """Model, tasks and seeds in words."""
        return describe(self.inputs, list(self.jobs.values()))


def obtain(
    words: Sequence[str], methods: Sequence[str], folder: Path | None, output_dir: Path
) -> Runs:
    """The runs that `words` ask for: those in `folder`, or else trained into OUTPUT_DIR/runs.

    Raises FinetuneError for a task that doesn't classify texts, for several learning rates, and for
    a run in `folder` that isn't finished or that has seen rows of another kind.
    """
    where = output_dir / "runs" if folder is None else folder
    plan = make_plan([*words, "--method", *methods, "--output_dir", str(where)])
    _require_one_rate(plan)
    jobs = {(job.task, job.method, job.seed): job for part in plan.rounds for job in part}
    runs = Runs(plan.inputs, jobs)
    for task in runs.tasks:
        found = plan.inputs.task(task, plan.inputs.settings[task, methods[0]]).task
        if found.kind != "text" or found.is_regression:
            raise FinetuneError(f"--task_name {task}: this figure needs tasks that classify texts.")
    if folder is None:
        run_sweep(plan)
    else:
        for job in jobs.values():
            _require_finished(job)
    return runs


def _require_one_rate(plan: Plan) -> None:
    for (task, method), settings in plan.inputs.settings.items():
        if len(settings.learning_rates) > 1:
            raise FinetuneError(
                f"--learning_rate: found {len(settings.learning_rates)} for {method} on {task}; a "
                "figure takes one. `python -m finetune.glue table` says which is best."
            )


def _require_finished(job: Job) -> None:
    if not (job.folder / FINISHED).is_file() or not (job.folder / "job.json").is_file():
        raise FinetuneError(
            f"{job.folder}: no finished run of {job.task}, {job.method}, seed {job.seed}; "
            "`python -m finetune.glue` makes them, and so does this command without --runs."
        )
    record = read_json(job.folder / "job.json")
    for name in READ_AGAIN:
        if record.get(name) != job.settings.get(name):
            raise FinetuneError(
                f"{job.folder} was made with {name} {record.get(name)}, found "
                f"{job.settings.get(name)}: give the same --{name} and data."
            )


def sweep(
    words: Sequence[str], cells: Mapping[str, Sequence[str]], folder: Path
) -> tuple[Inputs, dict[str, list[Job]]]:
    """Train masks with each cell's own flags, all cells in one sweep; finished runs are skipped.

    `cells` says by name what to add to `words` for each; a cell's runs are in FOLDER/NAME.
    """
    plans: dict[str, Plan] = {}
    inputs: Inputs | None = None
    for name, more in cells.items():
        where = ["--method", "mask", "--output_dir", str(folder / name)]
        plans[name] = make_plan([*words, *more, *where], inputs)
        inputs = plans[name].inputs
        _require_one_rate(plans[name])
    assert inputs is not None
    rounds = zip_longest(*(plan.rounds for plan in plans.values()), fillvalue=[])
    together = [[job for jobs in part for job in jobs] for part in rounds]
    run_sweep(Plan(inputs, together, next(iter(plans.values())).processes))
    jobs = {name: [job for part in plan.rounds for job in part] for name, plan in plans.items()}
    return inputs, jobs


def outcome(job: Job) -> Run:
    """What a finished job found."""
    results = read_json(job.folder / FINISHED)
    return Run(
        task=job.task,
        method=job.method,
        learning_rate=None,
        seed=job.seed,
        folder=job.folder,
        settings=job.settings,
        results=results,
    )


def describe(inputs: Inputs, jobs: Sequence[Job]) -> str:
    """Model, tasks with their training rows, and seeds, in words."""
    config = inputs.backbone.config
    tasks = []
    for job in {job.task: job for job in jobs}.values():
        rows = len(inputs.task(job.task, inputs.settings[job.task, job.method]).train.texts)
        tasks.append(f"{job.task} ({rows:,} training rows)")
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(job.seed for job in jobs))
    return (
        f"{config.model_type}, {config.num_hidden_layers} blocks of width {config.hidden_size}; "
        f"{', '.join(tasks)}; seeds {seeds}"
    )
