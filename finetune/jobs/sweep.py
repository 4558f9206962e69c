"""Many jobs: the finished ones skipped, the others one after another or side by side.

Imports, the tokenizer and each task's token rows are paid for once a process. Side by side, every
process has a GPU of its own, or its share of the processor's cores, and takes the next job as soon
as it is free.
"""

import logging
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from finetune.console import set_up
from finetune.jobs.folder import needs_run
from finetune.jobs.plan import Inputs, Plan
from finetune.jobs.train import Job, run_job

logger = logging.getLogger(__name__)


def run_sweep(plan: Plan) -> None:
    """Run every job of `plan` that isn't finished."""
    every = [job for jobs in plan.rounds for job in jobs]
    pending = [[job for job in jobs if needs_run(job.folder, job.settings)] for jobs in plan.rounds]
    total = sum(map(len, pending))
    if total < len(every):
        logger.info("%d of %d jobs are finished already", len(every) - total, len(every))
    processes = how_many(plan.processes, total)
    forecast = Forecast([job for jobs in pending for job in jobs], max(1, processes))
    number = 0
    for jobs in pending:
        run = (
            _side_by_side(jobs, plan.inputs, processes)
            if processes
            else _one_by_one(jobs, plan.inputs)
        )
        for job, results, seconds in run:
            number += 1
            left = forecast.after(job, seconds)
            _report(job, results, seconds, plan.inputs, f"{number} of {total}", left)


class Forecast:
    """Seconds until all jobs are done, from those that are.

    A job is expected to take as long as those of its task and method did; else as those of its
    method did, since a mask takes longer than finetuning; else as all did.
    """

    def __init__(self, jobs: list[Job], processes: int) -> None:
        self._waiting = {job.folder: job for job in jobs}
        self._processes = processes
        self._done: list[tuple[Job, float]] = []

    def after(self, job: Job, seconds: float) -> float:
        """Count a job that took `seconds`; the seconds left."""
        del self._waiting[job.folder]
        self._done.append((job, seconds))
        return sum(map(self._expected, self._waiting.values())) / self._processes

    def _expected(self, job: Job) -> float:
        same_method = [(done, s) for done, s in self._done if done.method == job.method]
        same_cell = [(done, s) for done, s in same_method if done.task == job.task]
        return statistics.mean(s for _, s in same_cell or same_method or self._done)


def how_many(wanted: int | None, jobs: int) -> int:
    """Processes to start for `jobs` jobs; 0 to run them in this one.

    One per visible GPU unless `wanted` says otherwise. With several GPUs even a single job gets a
    process that sees one of them: the Trainer would else spread each batch over all, and so train
    with larger batches than asked for. A launcher's ranks (torchrun, deepspeed) start none: they
    share every job.
    """
    if "LOCAL_RANK" in os.environ:
        return 0
    gpus = torch.cuda.device_count()
    processes = min(wanted or max(1, gpus), jobs)
    return processes if processes > 1 or gpus > 1 else 0


def _one_by_one(jobs: list[Job], inputs: Inputs) -> Iterator[tuple[Job, dict[str, Any], float]]:
    for job in jobs:
        began = time.monotonic()
        results = run_job(job, inputs.backbone, inputs.encoded(job))
        yield job, results, time.monotonic() - began


def _side_by_side(
    jobs: list[Job], inputs: Inputs, processes: int
) -> Iterator[tuple[Job, dict[str, Any], float]]:
    for job in jobs:
        inputs.encoded(job)  # into the cache, from which every process reads
    context = multiprocessing.get_context("spawn")
    devices = context.Queue()
    for name in _devices(processes):
        devices.put(name)
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    fresh = Inputs(inputs.model, inputs.settings)
    with ProcessPoolExecutor(
        processes, context, initializer=_start, initargs=(devices, threads, fresh)
    ) as pool:
        futures = {pool.submit(_run, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], *future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _devices(processes: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is for each process: the visible GPUs in turn, "" without any."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    return [names[index % len(names)] if names else "" for index in range(processes)]


# What a process of the pool holds from its start on.
_inputs: Inputs | None = None


def _start(devices: Any, threads: int, inputs: Inputs) -> None:
    global _inputs
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    torch.set_num_threads(threads)
    set_up()
    _inputs = inputs


def _end_with_parent() -> None:
    """A parent that is killed tells nobody, and a pool's process would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(job: Job) -> tuple[dict[str, Any], float]:
    assert _inputs is not None
    began = time.monotonic()
    results = run_job(job, _inputs.backbone, _inputs.encoded(job))
    return results, time.monotonic() - began


def _report(
    job: Job, results: dict[str, Any], seconds: float, inputs: Inputs, number: str, left: float
) -> None:
    data = inputs.task(job.task, inputs.settings[job.task, job.method])
    metric = data.task.metrics[0]
    value = results.get(f"eval_{metric}")
    outcome = "not evaluated" if value is None else f"{metric} {value:.4f}"
    if results["status"] != "ok":
        outcome += f" ({results['status']})"
    logger.info(
        "job %s: %s, %s, seed %d: %s in %.1f s, about %.0f s left",
        *(number, job.task, job.method, job.seed, outcome, seconds, left),
    )
