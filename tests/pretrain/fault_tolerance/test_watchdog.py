"""Processes that watch each other, without a training around them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]
# A rank that has met the other one; 30 s of silence and 2 s at one thing are its limits. As in
# training, an error in a collective waits for the watchdog to say whose it was.
SCRIPT = """
import sys, time, torch
from pretrain.fault_tolerance.watchdog import Watchdog
from pretrain.ranks import broadcast
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
watchdog = Watchdog(rank, 2, rank_seconds=30, hang_seconds=2)
watchdog.connect(broadcast, "127.0.0.1")
watchdog.enter()
if rank == 1:
    {act}
try:
    torch.distributed.barrier()
except RuntimeError:
    watchdog.wait_for_news()
    raise
watchdog.close()
torch.distributed.barrier()
print("rank", rank, "is through")
torch.distributed.destroy_process_group()
"""
# One that has met nobody yet.
START = """
import logging, time
logging.basicConfig(level=logging.INFO, format="%(message)s")
from pretrain.fault_tolerance import watchdog
watchdog.SAY_AFTER = {say_after}
dog = watchdog.Watchdog({rank}, {num_ranks}, rank_seconds=30, hang_seconds={hang_seconds})
dog.enter("opening the data")
print("here", flush=True)
time.sleep({seconds})
dog.enter()
time.sleep({seconds})
print("through")
"""


def both(act: str) -> tuple[list[int], list[str]]:
    """Exit codes and outputs of two ranks, of which the second does `act`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(act=act)],
            env=os.environ | shared | {"RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    return [process.returncode for process in processes], outputs


@pytest.mark.parametrize(
    ("act", "codes", "said"),
    [
        ("pass", [0, 0], "rank 0 is through"),
        ("watchdog.fail(2, 'shard 7 is gone'); sys.exit(2)", [2, 2], "error: rank 1: shard 7 is"),
        ("raise ValueError('a bug')", [69, 1], "error: rank 1 has died"),
        (
            "watchdog.enter('waiting for data'); time.sleep(100)",
            [69, 69],
            "error: nothing has happened for 2 s: rank 1 (waiting for data) hangs",
        ),
        ("time.sleep(100)", [69, 69], "error: nothing has happened for 2 s: rank "),
    ],
)
def test_how_two_ranks_end(act: str, codes: list[int], said: str) -> None:
    found, outputs = both(act)
    assert (found, said in outputs[0]) == (codes, True), "\n".join(outputs)
    if codes != [0, 0]:
        assert "is through" not in outputs[0] + outputs[1]


def script(rank: int, num_ranks: int, **more: float) -> str:
    limits = {"say_after": 30.0, "hang_seconds": 100.0, "seconds": 100.0} | more
    return START.format(rank=rank, num_ranks=num_ranks, **limits)


def run(text: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of one process."""
    result = subprocess.run(
        [sys.executable, "-c", text],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize(("rank", "num_ranks"), [(0, 1), (0, 2), (3, 4)])
def test_a_rank_that_hangs_before_it_has_met_others_ends_itself(rank: int, num_ranks: int) -> None:
    code, output = run(script(rank, num_ranks, hang_seconds=1))
    assert code == 69
    hangs = f"error: nothing has happened for 1 s: rank {rank} (opening the data) hangs; "
    assert hangs in output
    assert "through" not in output


@pytest.mark.parametrize(("rank", "says"), [(0, True), (1, True), (2, False)])
def test_a_long_start_says_what_it_waits_for(rank: int, says: bool) -> None:
    code, output = run(script(rank, 3, say_after=0.5, seconds=2.5))
    assert (code, "through" in output) == (0, True)
    found = re.findall(
        rf"^rank {rank} has been opening the data for (\d) s; the run ends after 100 s$",
        output,
        flags=re.M,
    )
    # At 0.5, 1 and 2 s; nothing about the step, which is as long.
    assert len(found) == (3 if says else 0), output
    assert output.count("has been") == len(found)


@pytest.mark.parametrize("deepspeed", [False, True])
def test_a_rank_whose_launcher_is_killed_before_all_have_met_ends(
    tmp_path: Path, deepspeed: bool
) -> None:
    """DeepSpeed's is known by CROSS_RANK, and there is a command above it that may be killed."""
    output = tmp_path / "output"
    (tmp_path / "rank.py").write_text(script(1, 2))
    own = {"PYTHONPATH": str(ROOT)} | ({"CROSS_RANK": "0"} if deepspeed else {})
    launcher = f"{sys.executable} {tmp_path}/rank.py & wait"
    with output.open("w") as stream:
        top = subprocess.Popen(
            ["sh", "-c", f"sh -c '{launcher}' & wait" if deepspeed else launcher],
            env=os.environ | own,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    while "here" not in output.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    rank = psutil.Process(top.pid).children(recursive=True)[-1]
    top.kill()
    top.wait()
    _, alive = psutil.wait_procs([rank], timeout=10)
    assert not alive or rank.status() == psutil.STATUS_ZOMBIE
    assert "error: the launcher of rank 1 has died; all ranks end, the same" in output.read_text()


@pytest.mark.parametrize("lost", ["its parent", "the command above"])
def test_a_rank_whose_launcher_died_before_it_looked_ends(tmp_path: Path, lost: str) -> None:
    (tmp_path / "rank.py").write_text(script(0, 2))
    command = f"(sleep 1; exec {sys.executable} {tmp_path}/rank.py) & exit 0"
    if lost == "the command above":
        command = f"(sleep 1; {sys.executable} {tmp_path}/rank.py; true) & exit 0"
    # Its output is at its end when the rank has ended, long after its launcher.
    result = subprocess.run(
        ["sh", "-c", command],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CROSS_RANK": "0"},
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
        timeout=60,
    )
    assert "error: the launcher of rank 0 has died" in result.stderr
