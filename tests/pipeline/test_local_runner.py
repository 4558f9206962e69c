import os

import pytest

from pipeline.local_runner import processors


def test_processors_are_those_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, mine)
    assert processors() <= len(mine)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert processors() == 1
