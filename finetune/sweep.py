"""Many jobs in one process: tasks × methods × seeds, the finished ones skipped.

Imports, the tokenizer and each task's token rows are paid for once.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path

from finetune.encode import Backbone, EncodedTask, encode_task
from finetune.errors import FinetuneError
from finetune.tasks import TaskData, load_task
from finetune.train import FINISHED, Job, run_job

logger = logging.getLogger(__name__)


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


def needs_run(job: Job) -> bool:
    """False if the job's folder has its results; FinetuneError if it has another job's."""
    if not (job.folder / FINISHED).is_file():
        return True
    found = json.loads((job.folder / "job.json").read_text(encoding="utf-8"))
    differing = sorted(
        key for key in found.keys() | job.settings.keys() if found.get(key) != job.settings.get(key)
    )
    if differing:
        changes = "\n".join(
            f"  {key}: found {found.get(key)!r}, asked for {job.settings.get(key)!r}"
            for key in differing
        )
        raise FinetuneError(
            f"{job.folder} holds the results of other settings:\n{changes}\n"
            "Name another --output_dir, or remove that folder."
        )
    return False


def run_sweep(
    jobs: Iterable[tuple[Job, int]], tasks: dict[str, TaskData], backbone: Backbone
) -> None:
    """Run each (job, max_seq_length) that isn't finished, in order."""
    jobs = list(jobs)
    pending = [pair for pair in jobs if needs_run(pair[0])]
    if len(pending) < len(jobs):
        logger.info("%d of %d jobs are finished already", len(jobs) - len(pending), len(jobs))
    encoded: dict[tuple[str, int], EncodedTask] = {}
    started = time.monotonic()
    for number, (job, max_seq_length) in enumerate(pending, start=1):
        key = (job.task, max_seq_length)
        if key not in encoded:
            encoded[key] = encode_task(tasks[job.task], backbone, max_seq_length)
        began = time.monotonic()
        results = run_job(job, backbone, encoded[key])
        metric = tasks[job.task].task.metrics[0]
        value = results.get(f"eval_{metric}")
        elapsed = time.monotonic() - started
        logger.info(
            "job %d of %d: %s, %s, seed %d: %s in %.1f s, about %.0f s left",
            number,
            len(pending),
            job.task,
            job.method,
            job.seed,
            "not evaluated" if value is None else f"{metric} {value:.4f}",
            time.monotonic() - began,
            elapsed / number * (len(pending) - number),
        )


def load_tasks(names: Iterable[str], data_dir: Path | None, with_test: bool) -> dict[str, TaskData]:
    """Every task's rows; all are read, and so checked, before the first job starts."""
    return {name: load_task(name, data_dir, with_test) for name in names}
