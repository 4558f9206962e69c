"""Ranks that begin together and leave nothing behind, in the launchers' environments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tiny_run import ROOT, free_port

SHARED_MEMORY = Path("/dev/shm")

# Sums 1 + 2 by DeepSpeed's own collective, through shared memory where it was built.
SUM = """
import os, signal, sys, torch
from pretrain.ranks import start_ranks
rank, ranks, device = start_ranks()
import deepspeed
value = torch.full([4096], rank + 1.0)
for _ in range(5):
    total = deepspeed.comm.inference_all_reduce(value.clone())
assert (value if total is None else total).sum() == 4096 * 3
torch.distributed.barrier()
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no /dev/shm here")
@pytest.mark.parametrize("number", [0, signal.SIGKILL], ids=["ended", "killed"])
def test_no_shared_memory_outlives_its_run(tmp_path: Path, number: int) -> None:
    script = tmp_path / "sum.py"
    script.write_text(SUM)
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_SIZE": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(number)],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [-number, -number]
    assert not list(SHARED_MEMORY.glob(f"*_{port}_*"))
