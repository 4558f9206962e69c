"""Whether a job should run in bf16 where its flags leave that open."""

import functools
import time

import torch

_WIDTH = 256  # in bf16 some 30 ms a product where a CPU emulates it, below 1 ms elsewhere
_SECONDS = 0.05


@functools.cache
def bf16_is_fast() -> bool:
    """Whether this machine multiplies bf16 faster than fp32: GPUs that have it; CPUs are measured.

    What a processor lists does not tell: bf16 is some 5 times as fast with AMX; with AVX-512 BF16
    alone 2.5 times on an AMD EPYC, but half as fast on an Intel Xeon; 60 times slower without
    either. One thread, since other work on the machine must not decide it.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
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
