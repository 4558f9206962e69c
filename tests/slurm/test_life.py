"""A run on a real Slurm that is stopped in every way, and resumes as if nothing had been."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.slurm.conftest import Cluster

pytestmark = pytest.mark.long

CPU = ("--cpus-per-task=1", "--gpus-per-node=0")


def losses(run: Path) -> dict[int, float]:
    """Training loss by step, as metrics.jsonl has it."""
    file = run / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    records = [json.loads(line) for line in lines]
    return {r["step"]: r["train/loss"] for r in records if "train/loss" in r}


def train(cluster: Cluster, recipe: Path, run: Path, flags: tuple[str, ...], *more: object) -> int:
    script = ("slurm/pretrain_large.sh", "--config", recipe, "--run.output_dir", run)
    return cluster.submit(*CPU, *flags, *script, *more)


def wait_for_start(cluster: Cluster, job: int, run: Path, number: int) -> None:
    """Until the job's `number`-th start, or a later one, has trained a step more."""

    def trains() -> bool:
        _, begun, since = cluster.log(job).partition(f": start {number} ")
        return bool(begun) and len(re.findall(r"\| step [\d,]+ \| loss ", since)) >= 1

    cluster.wait_for(job, trains, f"start {number}", seconds=240)


def test_time_limit_signals_requeue_and_a_lost_node(
    cluster: Cluster, data: Path, recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    # Due 80 seconds after a start; Slurm may send it up to 30 earlier.
    limit = ("--nodes=2", "--time=2", "--signal=B:USR2@40")
    job = train(cluster, recipe, run, limit)
    cluster.wait_for(job, lambda: cluster.job(job)["Restarts"] == "1", "the time limit's signal")
    assert "told to stop, exit code" in cluster.log(job)
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=30", check=False)
    wait_for_start(cluster, job, run, 2)

    cluster.run("scancel", "--signal=USR2", job)
    wait_for_start(cluster, job, run, 3)

    cluster.run("scontrol", "requeue", job)
    wait_for_start(cluster, job, run, 4)

    preempting = cluster.submit(
        *CPU, "--nodes=2", "--exclusive", "--partition=urgent", "--wrap=true"
    )
    cluster.wait(preempting, "COMPLETED", "FAILED")
    wait_for_start(cluster, job, run, 5)

    cluster.kill_node("n2")
    cluster.wait_for(job, lambda: cluster.states()["n2"].startswith("down"), "n2 down")
    cluster.start_node("n2")
    wait_for_start(cluster, job, run, 6)

    log = cluster.log(job)
    assert log.count("saved ") >= 4  # all but the lost node's were told in time
    assert "gave up" not in log
    cluster.run("scancel", job)
    cluster.wait(job, "CANCELLED")
    assert cluster.log(job).count(": start ") == log.count(": start ")

    broken = losses(run)
    last = max(broken)
    reference = train(cluster, recipe, tmp_path / "reference", ("--nodes=2",))
    cluster.wait_for(
        reference, lambda: max(losses(tmp_path / "reference"), default=0) >= last, f"step {last}"
    )
    cluster.run("scancel", reference)
    cluster.wait(reference, "CANCELLED")
    unbroken = losses(tmp_path / "reference")
    assert broken == {step: unbroken[step] for step in range(1, last + 1)}  # to the bit


def test_a_run_goes_on_with_the_nodes_that_are_left(
    cluster: Cluster, data: Path, recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    still = ("--model.dropout", "0", "--run.save_minutes", "0")
    job = train(cluster, recipe, run, ("--nodes=1-2",), *still)
    wait_for_start(cluster, job, run, 1)
    assert cluster.job(job)["NumNodes"] == "2"
    # A node lost before the first checkpoint leaves nothing to go on from.
    cluster.wait_for(job, lambda: "saved " in cluster.log(job), "the first checkpoint")
    cluster.kill_node("n2")
    try:
        wait_for_start(cluster, job, run, 2)
        assert cluster.job(job)["NodeList"] == "n1"
        assert "resuming from" in cluster.log(job)
        assert "8 sequences a micro-batch x 1 ranks x 8 accumulated" in cluster.log(job)
        cluster.run("scancel", job)
        cluster.wait(job, "CANCELLED")
    finally:
        cluster.start_node("n2")
    shrunk = losses(run)
    # The same batches on one node: the curve has no seam.
    values = [shrunk[step] for step in sorted(shrunk)]
    jumps = [abs(after - before) for before, after in itertools.pairwise(values)]
    assert max(jumps) < 0.5
