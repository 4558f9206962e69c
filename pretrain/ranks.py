"""This process among the others of its run: device, threads, process group.

python -m pretrain.ranks      build DeepSpeed's C++ parts now (`make` does this once)
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch

logger = logging.getLogger(__name__)


def start_ranks(timeout: timedelta = timedelta(minutes=30)) -> tuple[int, int, torch.device]:
    """Join the process group that the launcher set up, or make one of a single rank.

    Reads the environment of `deepspeed`, `torchrun` and `srun` alike. A collective that takes
    longer than `timeout` is an error.

    Returns:
        Global rank, number of ranks, this rank's device.
    """
    environment = os.environ
    slurm = "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment
    for name, value in {
        "RANK": environment["SLURM_PROCID"] if slurm else "0",
        "WORLD_SIZE": environment["SLURM_NTASKS"] if slurm else "1",
        "LOCAL_RANK": environment["SLURM_LOCALID"] if slurm else "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }.items():
        environment.setdefault(name, value)
    local_rank, world_size = int(environment["LOCAL_RANK"]), int(environment["WORLD_SIZE"])
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
        environment.setdefault("DS_ACCELERATOR", "cpu")
        local_ranks = int(environment.get("LOCAL_SIZE", environment.get("LOCAL_WORLD_SIZE", "1")))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_ranks))
    # DeepSpeed's C++ parts are built once per environment and live in it.
    environment.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions"))
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed  # only now: it reads DS_ACCELERATOR when it is imported

    if device.type == "cpu" and not has_compiler():
        # DeepSpeed would try to build its shared-memory collectives and fail; gloo needs nothing.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        if int(environment["RANK"]) == 0:
            logger.warning(
                "no C++ compiler: collectives go through gloo, slower than shared memory"
            )
    if world_size == 1:
        # A port that other runs on this machine may hold is not needed for one rank.
        store = torch.distributed.HashStore()
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    deepspeed.init_distributed(verbose=False, auto_mpi_discovery=False, timeout=timeout)
    if device.type == "cpu":
        _unlink_shared_memory()
    return torch.distributed.get_rank(), world_size, device


def _unlink_shared_memory() -> None:
    """Leave the memory of DeepSpeed's CPU collectives to the ranks alone, to be freed with them.

    DeepSpeed keeps 66 MiB per rank under a name that outlives even a run that ends well, so that
    some 300 runs would fill a machine's memory. Once every rank has mapped every other's, the
    names serve nothing.
    """
    torch.distributed.barrier()
    environment = os.environ
    run = f"{os.getuid()}_{environment['MASTER_ADDR']}_{environment['MASTER_PORT']}"
    name = f"deepspeed_allreduce_buffer_{run}_{environment['RANK']}"
    Path("/dev/shm", name).unlink(missing_ok=True)


def has_compiler() -> bool:
    """Whether C++ can be built here: DeepSpeed's collectives, torch.compile's kernels."""
    return shutil.which(os.environ.get("CXX", "c++")) is not None and bool(
        shutil.which("ninja") or shutil.which("make")
    )


def main() -> None:
    """Start one rank and end it: DeepSpeed builds its C++ parts on the way."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    start_ranks()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
