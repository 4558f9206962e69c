"""bf16 or fp32: whichever this machine multiplies faster."""

from __future__ import annotations

import functools
import time
from typing import Literal

import torch

_WIDTH = 256  # in bf16 some 30 ms a product where a CPU emulates it, below 1 ms elsewhere
_SECONDS = 0.05


def choose_precision(wanted: str, device: torch.device) -> Literal["bf16", "fp32"]:
    """`wanted`, or for `auto` bf16 where every rank multiplies it faster than fp32."""
    if wanted == "bf16" or wanted == "fp32":
        return wanted  # type: ignore[return-value]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = cpu_is_faster_in_bf16()
    if torch.distributed.is_initialized():
        everywhere = torch.tensor(int(fast), device=device)
        torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
        fast = bool(everywhere)
    return "bf16" if fast else "fp32"


@functools.cache
def cpu_is_faster_in_bf16() -> bool:
    """Measured, once a process: what a processor lists does not tell.

    bf16 is some 5 times as fast as fp32 with AMX; with AVX-512 BF16 alone 2.5 times on an AMD EPYC,
    but half as fast on an Intel Xeon; without either 60 times slower. One thread and the fastest of
    many products, since other work on the machine must not decide it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fastest(torch.bfloat16) < _fastest(torch.float32)
    finally:
        torch.set_num_threads(threads)


def _fastest(dtype: torch.dtype) -> float:
    """Seconds of the fastest of many products."""
    factor = torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    factor @ factor  # the first product is slower: its kernel is made
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < _SECONDS:
        start = time.perf_counter()
        factor @ factor
        times.append(time.perf_counter() - start)
    return min(times)
