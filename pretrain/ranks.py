"""The ranks of a run: the device and threads of each, how they join, what they tell each other."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch

from pretrain.errors import PretrainError, RankLostError
from pretrain.launch import Launch
from pretrain.meeting import meet

T = TypeVar("T")


def choose_device(launch: Launch) -> torch.device:
    """This rank's device; without a GPU, its share of the processors as threads.

    OMP_NUM_THREADS, where it is set, says how many: torch itself takes MKL's word over it, which
    counts cores without their hyperthreads.

    Raises:
        PretrainError: there are more ranks than GPUs.
    """
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        # Slurm may show each task one GPU, its own.
        index = launch.local_rank if count > 1 else 0
        if index >= count:
            raise PretrainError(
                f"rank {launch.rank} wants GPU {index}, and this node shows {count}: start as many "
                f"ranks as GPUs (deepspeed --num_gpus {count})"
            )
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        return device
    outermost = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one for each nesting
    if outermost.isdigit():
        num_threads = int(outermost)
    else:
        num_threads = launch.num_threads or len(os.sched_getaffinity(0)) // launch.num_local_ranks
    torch.set_num_threads(max(1, num_threads))
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
        PretrainError: there are too few GPUs, or the ranks can't meet.
        RankLostError: ranks did not come, or died.
    """
    device = choose_device(launch)
    environment = os.environ  # DeepSpeed reads these where it is initialised
    environment["RANK"] = str(launch.rank)
    environment["WORLD_SIZE"] = str(launch.num_ranks)
    environment["LOCAL_RANK"] = str(launch.local_rank if device.index is None else device.index)
    environment["MASTER_ADDR"] = launch.address
    environment["MASTER_PORT"] = str(launch.port)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    store = meet(launch, run, timeout, waiting_for)
    try:
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=launch.rank,
            world_size=launch.num_ranks,
            timeout=timeout,
        )
    except RuntimeError as error:  # gloo's are no DistError
        raise RankLostError(
            f"rank {launch.rank} can't connect to the other ranks, of which one may have died: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return device


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
