"""Two processes that watch each other, without a training around them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys, time, torch
from pretrain.fault_tolerance.watchdog import Watchdog
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
watchdog = Watchdog(rank, 2, rank_seconds=30, hang_seconds=2)
watchdog.doing()
if rank == 1:
    {act}
torch.distributed.barrier()
watchdog.close()
torch.distributed.barrier()
print("rank", rank, "is through")
torch.distributed.destroy_process_group()
"""


def both(act: str) -> tuple[list[int], list[str]]:
    """Exit codes and words of two ranks, of which the second does `act`."""
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
    words = [process.communicate(timeout=120)[0] for process in processes]
    return [process.returncode for process in processes], words


@pytest.mark.parametrize(
    ("act", "codes", "said"),
    [
        ("pass", [0, 0], "rank 0 is through"),
        ("watchdog.fail(2, 'shard 7 is gone'); sys.exit(2)", [2, 2], "error: rank 1: shard 7 is"),
        ("raise ValueError('a bug')", [69, 1], "error: rank 1 has died"),
        (
            "watchdog.doing('waiting for data'); time.sleep(100)",
            [69, 69],
            "error: nothing has happened for 2 s: rank 1 (waiting for data) hangs",
        ),
    ],
)
def test_how_two_ranks_end(act: str, codes: list[int], said: str) -> None:
    found, words = both(act)
    assert (found, said in words[0]) == (codes, True), "\n".join(words)
    if codes != [0, 0]:
        assert "is through" not in words[0] + words[1]
