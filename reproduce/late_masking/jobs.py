"""Jobs as processes of their own: what is finished is skipped, several run side by side.

Each of the `parallel` places has cores of its own, to which its processes are pinned: wall-clock
figures then compare, and matrices this small gain nothing from more threads.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from reproduce.errors import ReproduceError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Job:
    """A command that is done once its files are there; a second start resumes."""

    name: str
    command: Sequence[object]
    makes: Sequence[Path]
    log: Path

    @property
    def done(self) -> bool:
        """Whether all that it makes is there."""
        return all(path.exists() for path in self.makes)


def run_jobs(jobs: Sequence[Job], parallel: int) -> None:
    """Run what isn't done, in order; ReproduceError names what failed, after all others ran."""
    pending = [job for job in jobs if not job.done]
    if len(pending) < len(jobs):
        logger.info("%d of %d jobs are finished already", len(jobs) - len(pending), len(jobs))
    cores = sorted(os.sched_getaffinity(0))
    parallel = max(1, min(parallel, len(cores)))
    places = _Places([cores[place::parallel] for place in range(parallel)])
    failed, began = [], time.monotonic()
    with ThreadPoolExecutor(parallel) as pool:
        futures = {pool.submit(places.run, job): job for job in pending}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                job, (code, seconds) = futures[future], future.result()
                left = (time.monotonic() - began) / number * (len(pending) - number)
                outcome = f"exit code {code}, see {job.log}" if code else "done"
                logger.info(
                    "%s: %s after %.0f s (%d of %d, about %.0f min left)",
                    *(job.name, outcome, seconds, number, len(pending), left / 60),
                )
                if code:
                    failed.append(f"{job.name}: {_last_words(job.log)} ({job.log})")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            places.stop()
            raise
    if failed:
        raise ReproduceError("\n  ".join([f"{len(failed)} jobs failed:", *failed]))


class _Places:
    """Cores to run on, and what runs there."""

    def __init__(self, cores: Sequence[Sequence[int]]) -> None:
        self._free: SimpleQueue[Sequence[int]] = SimpleQueue()
        for share in cores:
            self._free.put(share)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(self, job: Job) -> tuple[int, float]:
        """Its process's exit code, and the seconds until then."""
        cores, began = self._free.get(), time.monotonic()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {
            "OMP_NUM_THREADS": str(len(cores)),
            "PYTHONPATH": path,
            "TOKENIZERS_PARALLELISM": "false",
        }
        with job.log.open("ab") as log, self._lock:
            process = subprocess.Popen(
                # taskset, not a function between fork and exec, which threads make unsafe.
                ["taskset", "--cpu-list", ",".join(map(str, cores)), *map(str, job.command)],
                cwd=ROOT,
                env=os.environ | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self._running.add(process)
        code = process.wait()
        with self._lock:
            self._running.remove(process)
        self._free.put(cores)
        return code, time.monotonic() - began

    def stop(self) -> None:
        """Ask all to end: they save, and resume when the same command is given again."""
        with self._lock:
            for process in self._running:
                process.terminate()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
