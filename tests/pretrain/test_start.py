"""Starts of whole runs on machines that are not as one would like them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kill_resume import stale_locks
from benchmarks.tiny_run import ROOT, Run, write_data

SHARED_MEMORY = Path("/dev/shm")
# Runs its arguments where /dev/shm holds no more than 1 MB.
SMALL_SHARED_MEMORY = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("start") / "data")


def config(name: str) -> tuple[str, str]:
    return "--run.deepspeed_config", str(ROOT / f"configs/deepspeed/{name}.json")


@pytest.fixture
def small_shared_memory() -> tuple[str, ...]:
    """A command's prefix."""
    own = ("unshare", "--mount", "sh", "-c", SMALL_SHARED_MEMORY, "sh")
    try:
        subprocess.run([*own, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system can be mounted by root only")
    return own


def in_shared_memory() -> set[str]:
    return {path.name for path in SHARED_MEMORY.glob("*deepspeed*")}


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no /dev/shm here")
def test_a_stale_lock_and_a_full_shared_memory_stop_no_run(
    data: Path, tmp_path: Path, small_shared_memory: tuple[str, ...]
) -> None:
    """DeepSpeed's collectives in shared memory would wait for the one and fill the other."""
    before = in_shared_memory()
    locks = stale_locks(tmp_path / "extensions")
    files = set((tmp_path / "extensions").rglob("*"))
    assert tmp_path / "extensions/deepspeed_shm_comm/lock" in files
    run = Run(data, tmp_path / "run", "--budget.steps", 3)
    output = run.go(prefix=small_shared_memory, environment=locks)
    assert (run.folder / "hf/model.safetensors").exists()
    assert "deepspeed_shm_comm" not in output
    assert set((tmp_path / "extensions").rglob("*")) == files
    assert in_shared_memory() == before


@pytest.mark.long
@pytest.mark.parametrize("name", ["zero0", "zero1", "zero2", "zero2_offload", "zero3"])
def test_nothing_is_built(data: Path, tmp_path: Path, name: str) -> None:
    """The folder of extensions can't be made, and there is no compiler for them."""
    (tmp_path / "file").touch()
    environment = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "file/extensions"), "CXX": "/no/compiler"}
    run = Run(data, tmp_path / "run", *config(name), "--budget.steps", 3)
    run.go(environment=environment)
    assert (run.folder / "hf/model.safetensors").exists()


@pytest.fixture
def three_runs(data: Path, tmp_path: Path) -> Iterator[list[Run]]:
    """Two of the same folder, and one more."""
    runs = [Run(data, tmp_path / name, "--budget.steps", 3) for name in ("one", "one", "another")]
    runs[1].log = tmp_path / "again.log"
    yield runs
    for run in runs:
        run.stop()


@pytest.mark.long
def test_runs_started_at_once_on_the_default_port_do_not_meet(three_runs: list[Run]) -> None:
    """One of the two that write the same folder is refused, all its ranks, and harms nobody."""
    for run in three_runs:
        run.start()
    codes = [run.wait(500) for run in three_runs]
    assert sorted(codes) == [0, 0, 2], [run.output[-2000:] for run in three_runs]
    assert codes[2] == 0
    refused = three_runs[codes.index(2)].output
    assert "is being written by process" in refused
    assert "Traceback" not in refused
    for run in three_runs:
        assert sorted(run.losses()) == [1, 2, 3]


@pytest.mark.long
def test_a_wrong_setting_is_said_once(data: Path, tmp_path: Path) -> None:
    run = Run(data, tmp_path / "run", "--model.max_position_embeddings", 10)
    output = run.go(code=2)
    assert output.count("error: model.max_position_embeddings is 10, sequences of") == 1
    assert "Traceback" not in output


def test_a_process_alone_needs_no_launcher(data: Path, tmp_path: Path) -> None:
    run = Run(data, tmp_path / "run", "--budget.steps", 2)
    words = ["--config", run.config, "--run.output_dir", run.folder, *run.overrides]
    taken = {"MASTER_ADDR": "no-such-node.invalid", "MASTER_PORT": "1", "WORLD_SIZE": "2"}
    result = subprocess.run(
        [sys.executable, "pretrain/main.py", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | taken,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "x 1 ranks x" in result.stderr
