"""The job scripts on a real Slurm, to their end."""

from __future__ import annotations

from pathlib import Path

import pytest

CPU = ("--cpus-per-task=1", "--gpus-per-node=0")


@pytest.mark.long
def test_preprocess(cluster, data: Path) -> None:
    assert (data / "manifest.json").is_file()


@pytest.mark.long
def test_pretrain(cluster, data: Path, recipe: Path, tmp_path: Path) -> None:
    import time
    job = cluster.submit(*CPU, "--nodes=2", "slurm/pretrain_large.sh", "--config", recipe, "--run.output_dir", tmp_path/"run", "--budget.steps", 300)
    t=time.time()
    cluster.wait(job, "COMPLETED","FAILED")
    print(time.time()-t, cluster.log(job))
