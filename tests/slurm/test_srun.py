"""pretrain/main.py under a plain srun, and typed into an allocation: without any launcher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.slurm.conftest import Cluster

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
CPU = ("--cpus-per-task=1", "--gpus-per-node=0")


def command(recipe: Path, run: Path, *more: object) -> str:
    words = (sys.executable, "pretrain/main.py", "--config", recipe, "--run.output_dir", run)
    return " ".join(map(str, [*words, *more]))


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_ranks_of_a_plain_srun_find_each_other(
    cluster: Cluster, data: Path, recipe: Path, tmp_path: Path, nodes: int
) -> None:
    run = tmp_path / "run"
    flags = (*CPU, f"--nodes={nodes}", "--ntasks=2")
    srun = f"srun --ntasks=2 {command(recipe, run, '--budget.steps', 3)}"
    job = cluster.submit(*flags, f"--wrap={srun}")
    ended = cluster.wait(job, "COMPLETED", "FAILED", seconds=300)
    log = cluster.log(job)
    assert ended["JobState"] == "COMPLETED", log
    assert "8 sequences a micro-batch x 2 ranks x 4 accumulated" in log
    assert log.count("| step 3 | loss ") == log.count(f"wrote {run}/hf") == 1
    (start,) = (run / "starts.jsonl").read_text().splitlines()  # rank 0's alone
    assert json.loads(start)["ranks"] == 2
    assert (run / "hf/model.safetensors").is_file()


def test_a_second_srun_of_the_same_folder_is_refused_as_a_whole(
    cluster: Cluster, data: Path, recipe: Path, tmp_path: Path
) -> None:
    """srun itself lets the others wait where one task fails."""
    srun = f"--wrap=srun --ntasks=2 {command(recipe, tmp_path / 'run')}"
    first = cluster.submit(*CPU, "--ntasks=2", srun)
    cluster.wait_for(first, lambda: "| step 1 | loss " in cluster.log(first), "step 1", 300)
    second = cluster.submit(*CPU, "--ntasks=2", srun)
    assert cluster.wait(second, "FAILED", "COMPLETED", seconds=200)["ExitCode"] == "2:0"
    assert "is being written by process" in cluster.log(second)
    assert cluster.job(first)["JobState"] == "RUNNING"
    cluster.run("scancel", first)
    cluster.wait(first, "CANCELLED")


@pytest.mark.parametrize(
    "shell",
    [("salloc", "--ntasks=2"), ("srun", "--ntasks=2", "--pty", "bash")],
    ids=["salloc", "srun --pty"],
)
def test_what_is_typed_into_an_allocation_is_one_process(
    cluster: Cluster, data: Path, recipe: Path, tmp_path: Path, shell: tuple[str, ...]
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    typed = f"{command(recipe, run, '--budget.steps', 3)} > {log} 2>&1 < /dev/null"
    terminal = (sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])")
    result = subprocess.run(
        [*terminal, shell[0], *CPU, *shell[1:]],
        cwd=ROOT,
        env=cluster.environment,
        input=f"{typed}\nexit\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert log.exists(), result.stdout + result.stderr
    assert "8 sequences a micro-batch x 1 ranks x 8 accumulated" in log.read_text()
    assert f"wrote {run}/hf" in log.read_text()
