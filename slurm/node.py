"""What each node of a job runs: `deepspeed pretrain/main.py`, told by Slurm's variables.

No ssh and no hostfile by hand. The processes' network interface is the one through which this node
reaches the first (NCCL and gloo would guess, often wrongly), unless the environment names another.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

import psutil


def interface_towards(address: str) -> str | None:
    """The network interface through which packets to `address` leave; None if none is known."""
    family, *_, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)  # sends nothing: it asks the routing table
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address.partition("%")[0] == own for found in addresses):
            return name
    return None


def deepspeed_command(
    environment: Mapping[str, str], hostfile: str, arguments: Sequence[str]
) -> list[str]:
    """The launcher's command line on this node."""
    binding = []
    if "SLURM_GPUS_ON_NODE" in environment and shutil.which("numactl"):
        # An equal share of the job's cores for each rank, and the memory that is next to them.
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        binding = ["--bind_cores_to_rank", "--bind_core_list", cores]
    return [
        *("deepspeed", "--hostfile", hostfile, "--no_ssh"),
        *("--node_rank", environment["SLURM_NODEID"]),
        *("--master_addr", environment["MASTER_ADDR"]),
        *("--master_port", environment["MASTER_PORT"]),
        *(*binding, "pretrain/main.py", *arguments),
    ]


def main(arguments: Sequence[str]) -> None:
    """Become DeepSpeed's launcher."""
    environment = os.environ
    nodes, ranks = int(environment["SLURM_STEP_NUM_NODES"]), environment["RANKS_PER_NODE"]
    if nodes > 1 and (interface := interface_towards(environment["MASTER_ADDR"])):
        for library in ("NCCL", "GLOO"):
            environment.setdefault(f"{library}_SOCKET_IFNAME", interface)
    # In memory, so that nothing is left behind; only the number of slots matters without ssh.
    hosts = os.memfd_create("hosts", flags=0)
    os.write(hosts, "".join(f"node{i} slots={ranks}\n" for i in range(nodes)).encode())
    # Slurm signals every process of a step. DeepSpeed's launchers would die of it, or end their
    # ranks: they inherit these as blocked, and pretrain/main.py unblocks them for itself.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})
    command = deepspeed_command(environment, f"/proc/self/fd/{hosts}", arguments)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
