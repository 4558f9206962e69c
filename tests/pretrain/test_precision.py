"""The precision of a run: what was asked for, or what all of its ranks multiply faster."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from benchmarks.tiny_run import ROOT, free_port
from pretrain.precision import choose_precision, cpu_is_faster_in_bf16

CHOOSE = """
import sys, torch
from pretrain import precision
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
precision.cpu_is_faster_in_bf16 = lambda: sys.argv[1][rank] == "f"
print(precision.choose_precision("auto", torch.device("cpu")))
torch.distributed.destroy_process_group()
"""


def test_a_cpu_takes_what_it_multiplies_faster(bf16_speed: float) -> None:
    cpu_is_faster_in_bf16.cache_clear()
    threads = torch.get_num_threads()
    chosen = choose_precision("auto", torch.device("cpu"))
    assert chosen == ("bf16" if bf16_speed > 1 else "fp32")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("wanted", ["bf16", "fp32"])
def test_what_is_asked_for_is_taken(wanted: str) -> None:
    assert choose_precision(wanted, torch.device("cpu")) == wanted


@pytest.mark.parametrize(("ranks", "chosen"), [("ff", "bf16"), ("fs", "fp32"), ("sf", "fp32")])
def test_ranks_agree(ranks: str, chosen: str) -> None:
    """One slow machine among fast ones (f fast, s slow): all take what it is fast at, too."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHOOSE, ranks],
            env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [process.communicate(timeout=120)[0].strip() for process in processes] == [chosen] * 2
