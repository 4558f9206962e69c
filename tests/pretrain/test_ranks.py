"""How the ranks of a run find each other: real processes, in the launchers' environments."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

from benchmarks.tiny_run import ROOT, free_port
from pretrain.errors import PretrainError
from pretrain.launch import Launch
from pretrain.ranks import choose_device

# Joins the other ranks of the run that is its first argument, as often as its third says, and
# prints what rank 0 is called. Its second is how long it waits for them.
RANK = """
import logging, os, sys
from datetime import timedelta
from pretrain.errors import PretrainError, say
from pretrain.fault_tolerance import watchdog
from pretrain.launch import Launch
from pretrain.main import end_process

logging.basicConfig(level=logging.INFO, format="%(message)s")
run, limit, times = sys.argv[1], timedelta(seconds=float(sys.argv[2])), int(sys.argv[3])
try:
    launch = Launch.from_environment()
    dog = watchdog.Watchdog(launch.rank, launch.num_ranks, rank_seconds=60, hang_seconds=300)
    import torch
    from pretrain.ranks import broadcast, join
    watchdog.SAY_AFTER = 1.0
    for _ in range(times):
        join(launch, run, limit, lambda ranks: dog.enter(f"waiting for {ranks}"))
        print("joined", broadcast(f"{run} {os.getppid()}"), flush=True)
        torch.distributed.destroy_process_group()
    print(torch.get_num_threads(), "threads")
except PretrainError as error:
    end_process(say(error))
end_process(0)
"""

Start = Callable[..., "subprocess.Popen[str]"]


def ranks_environment(rank: int, num_ranks: int = 2, **more: object) -> dict[str, str]:
    """As somebody would set it who starts the ranks of one node by hand."""
    own = {"RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": num_ranks}
    return {key: str(value) for key, value in (own | more).items()}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "rank.py"
    file.write_text(RANK)
    return file


@pytest.fixture
def start(tmp_path: Path, script: Path) -> Iterator[Start]:
    """Starts a rank, or another command that does; kills what is left in the end."""
    processes: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SLURM_", "MASTER_", "OMP_"))
    }

    def start(
        environment: Mapping[str, str],
        run: str = "run",
        limit: float = 100,
        times: int = 1,
        command: tuple[object, ...] = (),
    ) -> subprocess.Popen[str]:
        words = [*(command or (sys.executable, script)), run, limit, times]
        process = subprocess.Popen(
            [str(word) for word in words],
            env=inherited
            | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finish(*processes: subprocess.Popen[str], codes: int = 0) -> list[str]:
    """Their outputs, once all have ended with this exit code."""
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [codes] * len(processes), outputs
    return outputs


def wait_for_announcement(folder: Path) -> Path:
    """The file through which rank 0 is found, complete."""
    deadline = time.monotonic() + 100
    while not (found := list(folder.glob("latemask-*-" + 16 * "[0-9a-f]"))):
        assert time.monotonic() < deadline, "no file"
        time.sleep(0.01)
    return found[0]


def test_each_rank_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    launch = Launch(rank=3, num_ranks=4, local_rank=3, num_local_ranks=4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    choose_device(launch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # Slurm shows each task its own
    choose_device(launch)
    assert [device.index for device in taken] == [3, 0]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(PretrainError, match=r"rank 3 wants GPU 3, and this node shows 2: start"):
        choose_device(launch)


def test_processors_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def threads(**more: int) -> int:
        choose_device(Launch(num_ranks=4, num_local_ranks=4, **more))
        return torch.get_num_threads()

    assert threads() == 2
    assert threads(num_threads=3) == 3  # Slurm's --cpus-per-task: the task has these for itself
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # OpenMP's list, one number for each nesting
    assert threads() == 4


# ------------------------------------------------------------------ ranks of one node


def test_ranks_started_by_hand_meet_and_honour_omp_num_threads(start: Start) -> None:
    # MKL_NUM_THREADS stands for a machine whose two processors are one core: torch would take one.
    environments = [ranks_environment(r, OMP_NUM_THREADS=2, MKL_NUM_THREADS=1) for r in (1, 0)]
    both = [start(environment) for environment in environments]
    for output in finish(*both):
        assert "joined run " in output
        assert "\n2 threads\n" in output


def test_runs_with_the_same_port_meet_their_own_ranks_only(start: Start, tmp_path: Path) -> None:
    """The default port, at the same moment, again and again."""
    names = ("one", "another")
    ranks = {
        name: [start(ranks_environment(r, MASTER_PORT=29500), name, times=10) for r in range(2)]
        for name in names
    }
    for name in names:
        for output in finish(*ranks[name]):
            assert output.count("joined ") == output.count(f"joined {name} ") == 10
    assert not list((tmp_path / "tmp").iterdir())


def test_starts_of_the_same_run_at_the_same_moment_are_not_mixed(
    start: Start, script: Path
) -> None:
    """The second one is refused later, when it can't lock the folder; it must not end the first."""
    ranks = [f"RANK={r} LOCAL_RANK={r} {sys.executable} {script} $0 $1 $2 &" for r in range(2)]
    launcher = ("sh", "-c", f"{' '.join(ranks)} wait")
    environment = {key: v for key, v in ranks_environment(0).items() if not key.endswith("RANK")}
    both = [start(environment | {"CROSS_RANK": "0"}, command=launcher) for _ in range(2)]
    for process, output in zip(both, finish(*both), strict=True):
        assert output.count(f"joined run {process.pid}") == 2


def test_a_dead_processs_file_and_garbage_are_ignored(start: Start, tmp_path: Path) -> None:
    killed = start(ranks_environment(0))
    file = wait_for_announcement(tmp_path / "tmp")
    killed.kill()
    killed.wait()
    assert file.exists()
    second = start(ranks_environment(1))
    time.sleep(2)
    finish(start(ranks_environment(0)), second)
    assert not file.exists()
    file.write_text("no port at all")
    finish(start(ranks_environment(1)), start(ranks_environment(0)))
    file.write_text("30000")
    yesterday = time.time() - 25 * 3600
    os.utime(file, (yesterday, yesterday))
    finish(start(ranks_environment(1), run="another"), start(ranks_environment(0), run="another"))
    assert not file.exists()


@pytest.mark.long
def test_a_second_rank_0_is_refused(start: Start, tmp_path: Path) -> None:
    first = start(ranks_environment(0))
    wait_for_announcement(tmp_path / "tmp")
    (output,) = finish(start(ranks_environment(0)), codes=2)
    assert "error: another start of the same run waits for its ranks on this machine" in output
    finish(start(ranks_environment(1)), first)


@pytest.mark.long
def test_a_rank_that_dies_before_all_have_met_is_named(start: Start, tmp_path: Path) -> None:
    first, second = (start(ranks_environment(rank, num_ranks=3)) for rank in range(2))
    wait_for_announcement(tmp_path / "tmp")
    time.sleep(8)  # time to connect
    first.kill()
    (output,) = finish(second, codes=69)
    # If it had not connected yet, it waits for a rank 0 that never comes.
    assert "error: rank 0 died before all 3 ranks had met" in output


@pytest.mark.parametrize(("present", "missing"), [(0, "1, 2"), (1, "0")])
def test_ranks_that_never_come_are_named(start: Start, present: int, missing: str) -> None:
    (output,) = finish(start(ranks_environment(present, num_ranks=3), limit=4), codes=69)
    waited = f"rank {present} waited 4 s for rank {missing} of 3, in vain; look at"
    assert [line for line in output.splitlines() if line.startswith("error: ")] == [
        f"error: {waited} that rank's own output"
    ]
    waiting = rf"^rank {present} has been waiting for rank {missing} of 3 for [12] s; the run ends"
    assert re.search(waiting, output, flags=re.M)
    assert "Traceback" not in output


# ------------------------------------------------------------------ ranks of several nodes


def on_several_nodes(rank: int, port: int, num_ranks: int = 2, **more: str) -> dict[str, str]:
    """Each rank is the only one of its node, which is this machine in truth."""
    here = {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return ranks_environment(rank, num_ranks, **(here | more))


def test_ranks_of_several_nodes_meet_at_the_port(start: Start) -> None:
    port = free_port()
    late = start(on_several_nodes(1, port))
    time.sleep(3)
    for output in finish(start(on_several_nodes(0, port)), late):
        assert "joined run " in output


def test_a_taken_port_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (output,) = finish(start(on_several_nodes(0, port)), codes=2)
    (error,) = output.splitlines()
    assert error.startswith(f"error: port {port} of 127.0.0.1 is taken, perhaps by another run; ")
    assert "MASTER_PORT=N for srun" in error


@pytest.mark.parametrize(("present", "missing"), [(0, "1 of 2"), (1, "0 of 2 at 127.0.0.1:{}")])
def test_ranks_of_other_nodes_that_never_come_are_named(
    start: Start, present: int, missing: str
) -> None:
    port = free_port()
    (output,) = finish(start(on_several_nodes(present, port), limit=4), codes=69)
    missing = missing.format(port)
    assert f"error: rank {present} waited 4 s for rank {missing}, in vain" in output
    assert re.search(
        rf"^rank {present} has been waiting for rank {missing} for [12] s", output, re.M
    )
    assert "Traceback" not in output


@pytest.mark.long
def test_a_rank_that_is_there_twice_is_refused(start: Start) -> None:
    port = free_port()
    present = [start(on_several_nodes(rank, port, num_ranks=3)) for rank in (0, 1, 1)]
    deadline = time.monotonic() + 100
    while all(process.poll() is None for process in present):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (refused,) = [process for process in present if process.poll() is not None]
    (output,) = finish(refused, codes=2)
    assert "error: two processes are rank 1 of the same run: start it once only" in output


@pytest.mark.long
def test_an_address_that_does_not_resolve_is_named(start: Start) -> None:
    environment = on_several_nodes(1, 29500, MASTER_ADDR="no-such-node.invalid")
    process = start(environment, limit=20)
    output = process.communicate(timeout=100)[0]
    # A name server that doesn't answer is waited for.
    expected = {
        2: "error: MASTER_ADDR is no-such-node.invalid, which this node can't resolve",
        69: "waited 20 s for rank 0 of 2 at no-such-node.invalid:29500",
    }
    assert expected[process.returncode] in output


@pytest.mark.parametrize("nodes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_torchruns_ranks_meet(start: Start, script: Path, nodes: int) -> None:
    port = free_port()
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes)
    own = ("--nproc-per-node", 2 // nodes, "--master-addr", "127.0.0.1", "--master-port", port)
    agents = [
        start({}, command=(*torchrun, *own, "--node-rank", node, script)) for node in range(nodes)
    ]
    outputs = finish(*agents)
    assert "".join(outputs).count("joined run ") == 2
