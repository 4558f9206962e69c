"""The scripts on a real Slurm: accepted, checked, refused, run to their end, chained."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.slurm.conftest import Cluster

ROOT = Path(__file__).parents[2]
JOBS = ("preprocess", "pretrain_base", "pretrain_large", "glue")
CPU = ("--cpus-per-task=1", "--gpus-per-node=0")


@pytest.mark.parametrize("script", JOBS)
def test_sbatch_accepts_it_as_it_is(cluster: Cluster, script: str) -> None:
    answer = cluster.run("sbatch", "--partition=wide", "--test-only", f"slurm/{script}.sh")
    assert "to start at" in answer


def test_a_config_error_is_not_requeued(cluster: Cluster, recipe: Path) -> None:
    job = cluster.submit(
        *(*CPU, "--nodes=2", "slurm/pretrain_large.sh"),
        *("--config", recipe, "--run.output_dir", "runs/none", "--masking.rates", "0.5"),
    )
    ended = cluster.wait(job, "FAILED", "COMPLETED")
    assert (ended["ExitCode"], ended["Restarts"]) == ("2:0", "0")
    assert "did you mean masking.rate?" in cluster.log(job)
    assert re.fullmatch(r"=== .*: gave up: .*", cluster.log(job).splitlines()[-1])


def test_a_corpus_that_cannot_be_read_is_given_up_at_once(cluster: Cluster, corpus: Path) -> None:
    broken = corpus.parent / "broken.jsonl.gz"
    broken.write_bytes(b"no gzip at all")
    job = cluster.submit(
        *("--cpus-per-task=1", "slurm/preprocess.sh", "--config", corpus),
        *("--output", corpus.parent / "never", "--sources.paths", f"[{broken}]"),
    )
    ended = cluster.wait(job, "FAILED", "COMPLETED")
    assert (ended["ExitCode"], ended["Restarts"]) == ("2:0", "0")
    assert f"error: {broken}:1" in cluster.log(job)


@pytest.mark.long
def test_what_fails_again_and_again_is_given_up_with_the_reason(
    cluster: Cluster, tmp_path: Path
) -> None:
    job = cluster.submit(_job(tmp_path, "raise OSError(28, 'No space left on device')"))
    ended = cluster.wait(job, "FAILED", "COMPLETED")
    log = cluster.log(job)
    assert ended["Restarts"] == "2", log
    assert log.count("failed, exit code 1, at") == 3
    assert re.search(r"gave up: ended 3 times at \d+ files. OSError: .*space", log.splitlines()[-1])


def _job(folder: Path, program: str) -> Path:
    """A job script that runs a line of Python as the scripts of slurm/ run theirs."""
    script = folder / "job.sh"
    script.write_text(
        "#!/bin/bash\n#SBATCH --open-mode=append\nset -euo pipefail\n. slurm/launch.sh\n"
        f"FOLDER={folder} SAVE_SECONDS=1\n"
        f"on_nodes 1 python -c {shlex.quote(program)}\n"
    )
    return script


def test_what_hangs_at_the_time_limit_is_killed_and_requeued(
    cluster: Cluster, tmp_path: Path
) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGUSR2, signal.SIG_IGN); "
        "print('deaf', flush=True); time.sleep(60)"
    )
    job = cluster.submit("--signal=B:USR2@60", _job(tmp_path, deaf))
    cluster.wait_for(job, lambda: "deaf" in cluster.log(job), "a process that does not listen")
    cluster.run("scancel", "--batch", "--signal=USR2", job)
    cluster.wait_for(job, lambda: cluster.job(job)["Restarts"] == "1", "its requeue", 60)
    assert "told to stop, exit code" in cluster.log(job)
    cluster.run("scancel", job)


def test_submitting_checks_first(cluster: Cluster, recipe: Path, tmp_path: Path) -> None:
    run = (
        "--config",
        recipe,
        "--run.output_dir",
        tmp_path / "run",
        "--data.path",
        tmp_path / "data",
    )
    before = cluster.queued()
    command = ("slurm/submit.sh", "--partition=wide", *CPU)
    wrong = cluster.run(*command, "--nodes=3", "slurm/pretrain_base.sh", *run, check=False)
    assert "8 x 1 x 3; nodes that would do: 1, 2, 4, 8" in wrong
    missing = cluster.run(*command, "--nodes=2", "slurm/pretrain_base.sh", *run, check=False)
    assert f"{tmp_path}/data is not a folder" in missing
    gpus = ("slurm/submit.sh", "--partition=wide", "--nodes=2", "--cpus-per-task=1")
    wrong = cluster.run(*gpus, "--gpus-per-node=5", "slurm/pretrain_base.sh", *run, check=False)
    assert "8 x 5 x 2; nodes that would do: none" in wrong
    assert cluster.queued() <= before

    # With data to come from an earlier job, it is in the queue, released.
    later = ("--nodes=2", "--dependency=singleton", "--begin=now+1hour", "slurm/pretrain_base.sh")
    answer = cluster.run(*command, *later, *run)
    ((job, folder),) = re.findall(r"^(\d+) (\S+)$", answer, flags=re.M)
    assert folder == str(tmp_path / "run")
    found = cluster.job(int(job))
    assert (found["JobState"], found["Priority"] != "0") == ("PENDING", True)
    cluster.run("scancel", job)


@pytest.mark.long
def test_all_stages_run_to_their_end(
    cluster: Cluster, corpus: Path, recipe: Path, tasks: Path, tmp_path: Path
) -> None:
    """preprocess → pretrain_large on two nodes → glue, in one command."""
    answer = cluster.run(
        *("slurm/all.sh", "--config", recipe, "--run.output_dir", tmp_path / "run"),
        *("--budget.steps", 4),
        CORPUS=str(corpus),
        PRETRAIN="--nodes=2",
        GLUE=f"--data_dir={tasks} --max_seq_length=32 --num_train_epochs=1",
        SBATCH_GPUS_PER_NODE="0",
        SBATCH_OUTPUT=f"{cluster.folder}/%j.log",
        TASKS="sst2 rte",
        SEEDS="1",
    )
    jobs = [int(number) for number in re.findall(r": job (\d+), to", answer)]
    assert len(jobs) == 3
    for job in jobs:
        cluster.wait(job, "COMPLETED", "FAILED", seconds=240)
    assert (corpus.parent / "data/manifest.json").is_file()
    assert (tmp_path / "run/hf/model.safetensors").is_file()
    cluster.wait_for(
        jobs[-1],
        lambda: all(name in _read(tmp_path / "run/glue/table.md") for name in ("sst2", "rte")),
        "a table of both tasks",
    )
    status = cluster.run("slurm/status.sh", cluster.folder / f"{jobs[1]}.log")
    assert "restarts: 0" in status and "step 4 | loss" in status and "finished" in status


@pytest.mark.long
def test_two_nodes_make_the_same_data_as_one(
    cluster: Cluster, corpus: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("distributed", reason="needs the extra `dask`")
    flags = ("--nodes=2", "--cpus-per-task=1")
    out = ("--output", tmp_path / "data")
    job = cluster.submit(*flags, "slurm/preprocess.sh", "--config", corpus, *out)
    assert cluster.wait(job, "COMPLETED", "FAILED")["JobState"] == "COMPLETED", cluster.log(job)
    for shard in data.glob("*.tar"):
        assert (tmp_path / "data" / shard.name).read_bytes() == shard.read_bytes()


@pytest.mark.long
def test_chained_jobs_go_on_where_requeue_is_forbidden(
    cluster: Cluster, data: Path, recipe: Path, tmp_path: Path
) -> None:
    flags = (*CPU, "--nodes=2", "--no-requeue", "--dependency=singleton")
    run = ("--config", recipe, "--run.output_dir", tmp_path / "run", "--run.save_minutes", 0)
    script = ("slurm/pretrain_base.sh", *run, "--budget.steps", 12)
    first, second = (cluster.submit(*flags, *script) for _ in range(2))
    cluster.wait_for(first, lambda: "step 3 | loss" in cluster.log(first), "step 3")
    cluster.run("scancel", "--signal=USR2", first)
    assert cluster.wait(first, "FAILED", "COMPLETED")["ExitCode"] == "75:0"
    assert "this cluster forbids it" in cluster.log(first)
    cluster.wait(second, "COMPLETED", "FAILED")
    assert "resuming from" in cluster.log(second)
    assert (tmp_path / "run/hf/model.safetensors").is_file()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
