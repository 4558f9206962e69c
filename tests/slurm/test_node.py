"""What each node becomes: the launcher's command line, its signals, its interface."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import psutil
import pytest

ROOT = Path(__file__).parents[2]

# Stands in for DeepSpeed's launcher: says how it was started and what it would survive.
LAUNCHER = """#!/usr/bin/env python3
import os, pathlib, signal, sys
print(sys.argv[1:])
print(pathlib.Path(sys.argv[2]).read_text().split())
print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))
print(os.environ.get("GLOO_SOCKET_IFNAME"), os.environ.get("NCCL_SOCKET_IFNAME"))
"""


@pytest.fixture(scope="module")
def node() -> ModuleType:
    spec = importlib.util.spec_from_file_location("node", ROOT / "slurm/node.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def start(tmp_path: Path, nodes: int, **variables: str) -> list[str]:
    (tmp_path / "deepspeed").write_text(LAUNCHER)
    (tmp_path / "deepspeed").chmod(0o755)
    names = ("SLURM_GPUS_ON_NODE", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
    environment = {key: value for key, value in os.environ.items() if key not in names} | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_STEP_NUM_NODES": str(nodes),
        "SLURM_NODEID": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "20042",
        "RANKS_PER_NODE": "8",
    }
    result = subprocess.run(
        [sys.executable, ROOT / "slurm/node.py", "--config", "a b.yaml"],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


def test_it_becomes_the_launcher(tmp_path: Path) -> None:
    arguments, hosts, blocked, interfaces = start(tmp_path, 2, NCCL_SOCKET_IFNAME="ib0")
    assert "'--no_ssh', '--node_rank', '1', '--master_addr', '127.0.0.1'" in arguments
    assert arguments.endswith("'20042', 'pretrain/main.py', '--config', 'a b.yaml']")
    assert hosts == "['node0', 'slots=8', 'node1', 'slots=8']"
    assert {int(n) for n in blocked.strip("[]").split(",")} >= {signal.SIGTERM, signal.SIGUSR2}
    assert interfaces == "lo ib0"  # chosen; the user's own choice kept


def test_one_node_needs_no_interface(tmp_path: Path) -> None:
    assert start(tmp_path, 1)[-1] == "None None"


def test_the_interface_is_the_one_with_this_nodes_address(node: ModuleType) -> None:
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if address.family == socket.AF_INET:
                assert node.interface_towards(address.address) == name
