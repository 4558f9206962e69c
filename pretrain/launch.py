"""Who this process is among the ranks of its run, as its launcher says it in the environment, and
whether that launcher lives.

`deepspeed`, `torchrun`, `srun` and a plain `python` set different variables. Nothing here waits for
another process.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from pretrain.errors import PretrainError, require

DEFAULT_PORT = 29500  # of DeepSpeed and torch: what launchers pass on when nobody asked for a port
THIS_NODE = "127.0.0.1"
INIT = 1  # the process that inherits orphans


@dataclass(frozen=True)
class Launch:
    """What the environment says of this process."""

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    num_local_ranks: int = 1
    address: str = THIS_NODE
    """Of rank 0's node."""
    port: int = DEFAULT_PORT
    num_threads: int | None = None
    """What the launcher has set aside for each rank; None: the ranks share the node."""
    start: str = ""
    """The same on all ranks of this start, another for other starts, as far as they can know it."""

    def __post_init__(self) -> None:
        require(
            0 <= self.rank < self.num_ranks and 0 <= self.local_rank < self.num_local_ranks,
            f"this process is rank {self.rank} of {self.num_ranks}, and {self.local_rank} of "
            f"{self.num_local_ranks} on this node, but ranks count from 0: unset RANK for a single "
            "process, or let deepspeed, torchrun or srun set it",
        )
        require(
            0 < self.port < 2**16,
            f"MASTER_PORT is {self.port}, expected a port: unset it, or give one below {2**16}",
        )

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, *, in_a_shell: bool | None = None
    ) -> Launch:
        """Read the variables of `deepspeed` and `torchrun`, else those of `srun`.

        Args:
            environment: of this process.
            in_a_shell: whether somebody types at the terminal that this process was started from;
                None: find out.

        Raises:
            PretrainError: the variables contradict each other, or `srun` started ranks on several
                nodes and where they meet is unknown.
        """
        if environment.get("RANK"):
            return cls._from_launcher(environment)
        # A shell in an allocation has Slurm's variables, too, but is no rank of its step.
        is_task = {"SLURM_PROCID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"} <= environment.keys()
        if is_task and not (_in_a_shell(environment) if in_a_shell is None else in_a_shell):
            return cls._from_slurm(environment)
        return cls()

    @classmethod
    def _from_launcher(cls, environment: Mapping[str, str]) -> Launch:
        num_ranks = _number(environment, "WORLD_SIZE", 1)
        size = "LOCAL_WORLD_SIZE" if environment.get("LOCAL_WORLD_SIZE") else "LOCAL_SIZE"
        num_local_ranks = _number(environment, size, 1)
        on_one_node = num_local_ranks == num_ranks
        start = f"restart {environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        if on_one_node:
            # Other nodes have other launchers, and ranks started by hand may have none in common.
            launched = {"CROSS_RANK", "TORCHELASTIC_RUN_ID"} & environment.keys()
            port = environment.get("MASTER_PORT", "")
            start += f" by process {_launcher()}" if launched else f" at port {port}"
        return cls(
            rank=_number(environment, "RANK", 0),
            num_ranks=num_ranks,
            local_rank=_number(environment, "LOCAL_RANK", 0),
            num_local_ranks=num_local_ranks,
            address=THIS_NODE if on_one_node else environment.get("MASTER_ADDR") or THIS_NODE,
            port=_number(environment, "MASTER_PORT", DEFAULT_PORT),
            start=start,
        )

    @classmethod
    def _from_slurm(cls, environment: Mapping[str, str]) -> Launch:
        num_ranks = _number(environment, "SLURM_STEP_NUM_TASKS", 1)
        num_nodes = _number(environment, "SLURM_STEP_NUM_NODES", 1)
        job = _number(environment, "SLURM_JOB_ID", 0)
        step = _number(environment, "SLURM_STEP_ID", 0)
        # The same on all ranks; jobs and steps that run side by side get different ones.
        port = 20000 + (31 * job + step) % 10000
        if num_nodes == 1:
            address = THIS_NODE
        else:
            address = environment.get("MASTER_ADDR") or _first_node(environment)
        return cls(
            rank=_number(environment, "SLURM_PROCID", 0),
            num_ranks=num_ranks,
            local_rank=_number(environment, "SLURM_LOCALID", 0),
            num_local_ranks=_tasks_on_this_node(environment, num_ranks, num_nodes),
            address=address,
            port=_number(environment, "MASTER_PORT", port),
            num_threads=_number(environment, "SLURM_CPUS_PER_TASK", 0) or None,
            start=f"{job}.{step} restart {environment.get('SLURM_RESTART_COUNT', '0')}",
        )

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, which alone writes and speaks."""
        return self.rank == 0

    @property
    def is_on_one_node(self) -> bool:
        """Whether all ranks are processes of this machine."""
        return self.num_local_ranks == self.num_ranks


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    require(
        text.isdecimal(),
        f"{name} is {text!r}, expected a whole number: unset {name}, or let deepspeed, torchrun or "
        "srun set it",
    )
    return int(text)


def _launcher() -> int:
    """The process that has started all ranks of this node; scripts may stand between.

    What it starts has RANK in its environment, and it has not.
    """
    process = psutil.Process()
    try:
        while (parent := process.parent()) and "RANK" in parent.environ():
            process = parent
    except psutil.Error:  # somebody else's process: no launcher of ours is above it
        pass
    return process.ppid()


def _in_a_shell(environment: Mapping[str, str]) -> bool:
    """Whether this process hangs on a terminal, as what is typed into `salloc`'s shell does.

    Tasks of a step have none, but for the first one of `srun --pty`, which is a shell's as a rule.
    """
    if environment.get("SLURM_TASK_PID") == str(os.getpid()):
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _tasks_on_this_node(environment: Mapping[str, str], num_ranks: int, num_nodes: int) -> int:
    """From "2(x3),1": two tasks on each of three nodes, one on the last."""
    counts: list[int] = []
    for word in environment.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        count, _, times = word.rstrip(")").partition("(x")
        if count.isdecimal():
            counts += [int(count)] * int(times or 1)
    node = environment.get("SLURM_NODEID", "")
    if node.isdecimal() and int(node) < len(counts):
        return counts[int(node)]
    return -(-num_ranks // num_nodes)


def _first_node(environment: Mapping[str, str]) -> str:
    """The address of the step's first node; names of nodes need not resolve."""
    nodes = environment.get("SLURM_STEP_NODELIST", "")
    try:
        names = _output_of("scontrol", "show", "hostnames", nodes).split()
        fields = _output_of("scontrol", "show", "node", names[0]).split()
        return next(f.partition("=")[2] for f in fields if f.startswith("NodeAddr="))
    except (OSError, subprocess.SubprocessError, IndexError, StopIteration):
        raise PretrainError(
            f"MASTER_ADDR is not set, and scontrol does not tell the first node of {nodes!r}; "
            'export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"'
        ) from None


def _output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


class Launcher:
    """The process that started this one, and under DeepSpeed the `deepspeed` command above that."""

    def __init__(self) -> None:
        """Look now: later on they may have died unseen."""
        self._parent = os.getppid()
        self._command: int | None = None
        self._was_gone = False
        if "CROSS_RANK" in os.environ:
            self._command = _parent_of(self._parent)
            self._was_gone = self._died_before()

    def _died_before(self) -> bool:
        """Whether one of DeepSpeed's has died already, and another process has inherited a child.

        All of them share a process group.
        """
        if self._command is None or os.getpgid(self._parent) != os.getpgrp():
            return True
        try:
            return self._command == INIT and "deepspeed" not in " ".join(
                psutil.Process(INIT).cmdline()
            )
        except psutil.Error:
            return True

    @property
    def is_gone(self) -> bool:
        """Whether one of them has died."""
        if self._was_gone or os.getppid() != self._parent:
            return True
        return self._command is not None and _parent_of(self._parent) != self._command


def _parent_of(process: int) -> int | None:
    try:
        return psutil.Process(process).ppid()
    except psutil.Error:
        return None
