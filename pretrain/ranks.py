"""This process among the others of its run: who it is, its device and threads, where all meet.

`deepspeed`, `torchrun`, `srun` and a plain `python` start processes with different variables;
`Launch` reads them without waiting for anyone, `join` meets the other ranks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from torch.distributed import HashStore, Store, TCPStore

from pretrain.errors import PretrainError

T = TypeVar("T")

DEFAULT_PORT = 29500  # of DeepSpeed and torch: what launchers pass on when nobody asked for a port


class RankLostError(PretrainError):
    """Another rank is gone; the same command resumes."""

    exit_code = 69  # EX_UNAVAILABLE


@dataclass(frozen=True)
class Launch:
    """What the environment says of this process."""

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    num_local_ranks: int = 1
    address: str = "127.0.0.1"
    """Of rank 0's node."""
    port: int = DEFAULT_PORT

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """Read the variables of `deepspeed` and `torchrun`, else those of `srun`.

        Raises:
            PretrainError: `srun` started ranks on several nodes, and where they meet is unknown.
        """
        port = int(environment.get("MASTER_PORT", DEFAULT_PORT))
        address = environment.get("MASTER_ADDR", "127.0.0.1")
        if "RANK" in environment:
            num_ranks = int(environment.get("WORLD_SIZE", "1"))
            local = environment.get("LOCAL_WORLD_SIZE", environment.get("LOCAL_SIZE", "1"))
            return cls(
                rank=int(environment["RANK"]),
                num_ranks=num_ranks,
                local_rank=int(environment.get("LOCAL_RANK", "0")),
                num_local_ranks=int(local),
                address=address,
                port=port,
            )
        if not _is_slurm_task(environment):
            return cls()
        num_ranks = int(environment["SLURM_STEP_NUM_TASKS"])
        num_nodes = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
        if "MASTER_PORT" not in environment:
            job = int(environment["SLURM_JOB_ID"]) + int(environment["SLURM_STEP_ID"])
            port = 20000 + job % 10000  # the same on all ranks, another for other jobs
        return cls(
            rank=int(environment["SLURM_PROCID"]),
            num_ranks=num_ranks,
            local_rank=int(environment["SLURM_LOCALID"]),
            num_local_ranks=num_ranks // num_nodes,
            address=environment.get("MASTER_ADDR") or _first_node(environment, num_nodes),
            port=port,
        )

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, which alone writes and speaks."""
        return self.rank == 0

    @property
    def is_on_one_node(self) -> bool:
        """Whether all ranks are processes of this machine."""
        return self.num_local_ranks == self.num_ranks


def _is_slurm_task(environment: Mapping[str, str]) -> bool:
    """Whether `srun` started this process as one rank of several.

    A shell inside an allocation has Slurm's variables as well, but no other tasks beside it: an
    interactive step counts one, and `srun --pty` gives its first task a terminal.
    """
    wanted = {"SLURM_PROCID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"}
    return wanted <= environment.keys() and not sys.stdin.isatty()


def _first_node(environment: Mapping[str, str], num_nodes: int) -> str:
    """The address of the step's first node; names of nodes need not resolve."""
    if num_nodes == 1:
        return "127.0.0.1"
    nodes = environment.get("SLURM_STEP_NODELIST", "")
    try:
        names = _output_of("scontrol", "show", "hostnames", nodes).split()
        fields = _output_of("scontrol", "show", "node", names[0]).split()
        return next(f.partition("=")[2] for f in fields if f.startswith("NodeAddr="))
    except (OSError, subprocess.CalledProcessError, IndexError, StopIteration):
        raise PretrainError(
            f"MASTER_ADDR is not set, and scontrol does not tell the first node of {nodes!r}; "
            'export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"'
        ) from None


def _output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def choose_device(launch: Launch) -> torch.device:
    """This rank's device; without a GPU, its share of the processors as threads.

    OMP_NUM_THREADS, where it is set, says how many.
    """
    if torch.cuda.is_available():
        device = torch.device("cuda", launch.local_rank)
        torch.cuda.set_device(device)
        return device
    if "OMP_NUM_THREADS" not in os.environ:
        own = len(os.sched_getaffinity(0)) // launch.num_local_ranks
        torch.set_num_threads(max(1, own))
    return torch.device("cpu")


def join(
    launch: Launch,
    run: str,
    timeout: timedelta = timedelta(minutes=30),
    waiting_for: Callable[[str], None] = lambda _what: None,
) -> torch.device:
    """Meet the other ranks in a process group; returns this rank's device.

    Args:
        launch: who this process is.
        run: names the run, so that ranks of another one are not taken for ours.
        timeout: of the meeting, and of every collective afterwards.
        waiting_for: told what keeps the ranks from going on.

    Raises:
        PretrainError: the port is taken, or ranks did not come.
    """
    device = choose_device(launch)
    environment = os.environ  # DeepSpeed reads these where it is initialised
    environment["RANK"] = str(launch.rank)
    environment["WORLD_SIZE"] = str(launch.num_ranks)
    environment["LOCAL_RANK"] = str(launch.local_rank)
    environment["MASTER_ADDR"] = launch.address
    environment.setdefault("MASTER_PORT", str(launch.port))
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    try:
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=_meet(launch, run, timeout, waiting_for),
            rank=launch.rank,
            world_size=launch.num_ranks,
            timeout=timeout,
        )
    except torch.distributed.DistError as error:
        raise RankLostError(
            f"rank {launch.rank} lost the others while they met: {str(error).splitlines()[0]}"
        ) from None
    return device


def _meet(
    launch: Launch, run: str, timeout: timedelta, waiting_for: Callable[[str], None]
) -> Store:
    """The store through which all ranks, each of which has come, exchange their addresses."""
    if launch.num_ranks == 1:
        return HashStore()
    name = hashlib.sha256(run.encode()).hexdigest()[:16]
    deadline = Deadline(launch, timeout, waiting_for)
    if launch.is_on_one_node:
        return _meet_on_this_node(launch, name, deadline)
    store = _meet_at_port(launch, name, timeout)
    deadline.wait_for_all(store)
    return store


class Deadline:
    """Until when the ranks must have met, and what they wait for meanwhile."""

    def __init__(
        self, launch: Launch, timeout: timedelta, waiting_for: Callable[[str], None]
    ) -> None:
        self._launch, self._timeout, self._waiting_for = launch, timeout, waiting_for
        self._end = time.monotonic() + timeout.total_seconds()

    def wait_for_all(self, store: Store) -> None:
        """Until every rank has said in `store` that it is here."""
        store.set(f"rank {self._launch.rank}", "here")
        missing = list(range(self._launch.num_ranks))
        while missing := [rank for rank in missing if not store.check([f"rank {rank}"])]:
            self.wait_for(missing)

    def wait_for(self, missing: list[int]) -> None:
        """A moment more for these ranks."""
        names = ", ".join(map(str, missing[:8])) + (" …" if len(missing) > 8 else "")
        ranks = f"rank {names} of {self._launch.num_ranks}"
        self._waiting_for(ranks)
        if time.monotonic() > self._end:
            raise RankLostError(f"waited {self._timeout} for {ranks}; its own output may say why")
        time.sleep(0.05)


def _meet_on_this_node(launch: Launch, name: str, deadline: Deadline) -> Store:
    """On one node: rank 0 takes a free port and leaves it in a file for the others.

    The launchers' default port is the same for all runs. The file lies there only while the ranks
    meet; one that a killed run left behind names a process that is gone.
    """
    file = Path(tempfile.gettempdir(), f"latemask-{os.getuid()}-{name}")
    if launch.is_main_process:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        own = psutil.Process()
        partial = file.with_name(f"{file.name}-{own.pid}")
        partial.write_text(f"{store.port} {own.pid} {own.create_time()}")
        partial.replace(file)
        try:
            deadline.wait_for_all(store)
        finally:
            file.unlink(missing_ok=True)
        return store
    while (port := _announced_port(file)) is None:
        deadline.wait_for([0])
    store = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
    deadline.wait_for_all(store)
    return store


def _announced_port(file: Path) -> int | None:
    """The port in `file`, if the process that wrote it is there."""
    try:
        port, pid, created = file.read_text().split()
        if psutil.Process(int(pid)).create_time() == float(created):
            return int(port)
    except (OSError, ValueError, psutil.Error):
        pass
    return None


def _meet_at_port(launch: Launch, name: str, timeout: timedelta) -> Store:
    """On several nodes: rank 0, or torchrun's agent beside it, listens at the launcher's port."""
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = TCPStore(
            launch.address,
            launch.port,
            is_master=launch.is_main_process and not agent,
            timeout=timeout,
            wait_for_workers=False,
        )
    except torch.distributed.DistNetworkError as error:
        if "EADDRINUSE" in str(error):
            raise PretrainError(
                f"port {launch.port} of {launch.address} is taken, perhaps by another run; give "
                "all ranks another one: deepspeed --master_port N, or MASTER_PORT=N for srun"
            ) from None
        raise RankLostError(
            f"rank {launch.rank} can't reach rank 0 at {launch.address}:{launch.port}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return torch.distributed.PrefixStore(f"{name}-{attempt}", store)


def broadcast(value: Any) -> Any:
    """Rank 0's `value`, any picklable object, on all ranks."""
    values = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]


def on_main_process(find: Callable[[], T]) -> T:
    """What `find` gives on rank 0, on all ranks; its exceptions, too. Collective."""
    result: T | Exception | None = None
    if torch.distributed.get_rank() == 0:
        try:
            result = find()
        except Exception as error:  # whatever it is: the other ranks wait for an answer
            result = error
    result = broadcast(result)
    if isinstance(result, Exception):
        raise result
    return result


def has_compiler() -> bool:
    """Whether C++ can be built here: torch.compile's kernels, Muon's among them."""
    return shutil.which(os.environ.get("CXX", "c++")) is not None and bool(
        shutil.which("ninja") or shutil.which("make")
    )
