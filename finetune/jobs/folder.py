"""A job's folder: whether its results are there, of which settings, and who may write them.

`job.json` is written before training, `all_results.json` last of all: a folder without it is an
unfinished job, which resumes from its checkpoints only if they were made with the same settings.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from finetune.errors import FinetuneError
from finetune.files import read_json
from finetune.jobs.checkpoints import numbered_checkpoints

logger = logging.getLogger(__name__)

SETTINGS = "job.json"
FINISHED = "all_results.json"
# A file server takes a while to notice that a node with a lock has died.
WAIT_SECONDS = 60


def needs_run(folder: Path, settings: dict[str, Any]) -> bool:
    """False if `folder` has the results of the job with these settings, those of its `job.json`.

    FinetuneError if the folder has results or checkpoints of other settings, or if a file doesn't
    say of which.
    """
    finished = (folder / FINISHED).is_file()
    if not finished and not numbered_checkpoints(folder):
        return True
    found = read_json(folder / SETTINGS)
    differing = sorted(
        key for key in found.keys() | settings.keys() if found.get(key) != settings.get(key)
    )
    if differing:
        changes = "\n".join(
            f"  {key}: found {found.get(key)!r}, asked for {settings.get(key)!r}"
            for key in differing
        )
        raise FinetuneError(
            f"{folder} holds the {'results' if finished else 'checkpoints'} of other "
            f"settings:\n{changes}\nName another --output_dir, or remove that folder."
        )
    return not finished


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; FinetuneError if another one is running the job.

    Of the ranks of one job the first holds it for all. The operating system frees it when the
    process ends, however it ends.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    lock = FileLock(folder / "job.lock")
    try:
        with suppress(Timeout):
            lock.acquire(timeout=0)
        if not lock.is_locked:
            logger.info("%s: waiting for the process that runs this job", folder)
            lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        raise FinetuneError(
            f"{folder}: another process is running this job. Wait for it, or name another "
            "--output_dir."
        ) from None
    except OSError as error:
        logger.warning(
            "%s: this file system has no locks (%s); make sure that no other process runs this job",
            folder,
            error.strerror,
        )
    try:
        yield
    finally:
        lock.release()
