"""The machine a benchmark runs on: what it is, its fastest matrix product."""

from __future__ import annotations

import logging
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

logger = logging.getLogger(__name__)


def describe(device: torch.device) -> str:
    """Processor or GPU, threads or memory, and torch's version, in one line."""
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    return f"{processor(device)}{threads}, torch {torch.__version__}"


def processor(device: torch.device) -> str:
    """The GPU with its memory, or the CPU with its vector and matrix units."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    units = [u for u in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if u in flags]
    return f"{models[0] if models else platform.processor()} ({', '.join(units)})"


def seconds_of(step: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call, the device's work included."""
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def timed(
    steps: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each step: once for warming up, not counted, then `repeats` interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        logger.info("%s: first step %.1f s", name, seconds_of(step, device))
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds_of(step, device))
            logger.info("%s: %.2f s", name, times[name][-1])
    return times


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the best of several large matrix products: what is within reach."""
    best = 0.0
    sizes = ((4096, 4096, 4096), (8192, 8192, 8192)) if device.type == "cuda" else ()
    for m, n, k in ((1024, 3072, 768), (1024, 4096, 1024), (2048, 2048, 2048), *sizes):
        a, b = (torch.randn(*s, device=device, dtype=dtype) for s in ((m, k), (n, k)))
        times = [seconds_of(lambda a=a, b=b: a @ b.t(), device) for _ in range(12)]  # type: ignore[misc]
        best = max(best, 2 * m * n * k / statistics.median(times[2:]))
    return best
