"""Jobs: what is done is skipped, what fails is named, each has its cores."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from reproduce.errors import ReproduceError
from reproduce.late_masking.jobs import Job, run_jobs


def python(name: str, code: str, folder: Path) -> Job:
    return Job(name, [sys.executable, "-c", code], [folder / name], folder / f"{name}.log")


def test_done_jobs_are_skipped_and_others_run_in_spite_of_a_failure(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    touch = f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'new').touch()"
    jobs = [
        python("old", "raise SystemExit('was run again')", tmp_path),
        python("bad", "raise SystemExit('no such shard')", tmp_path),
        python("new", touch, tmp_path),
    ]
    with pytest.raises(ReproduceError, match=r"1 jobs failed:\s+bad: no such shard .*bad.log"):
        run_jobs(jobs, parallel=1)
    assert jobs[2].done
    assert not jobs[0].log.exists()


def test_each_place_has_its_share_of_the_cores(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    tell = "import os, time; print(*sorted(os.sched_getaffinity(0))); time.sleep(0.3)"
    jobs = [python(name, tell, tmp_path) for name in ("a", "b")]
    run_jobs(jobs, parallel=2)
    found = [job.log.read_text().split() for job in jobs]
    if len(cores) > 1:
        assert not set(found[0]) & set(found[1])
        assert {int(core) for part in found for core in part} == set(cores)
    else:
        assert found[0] == found[1]
