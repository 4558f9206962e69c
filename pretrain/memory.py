"""Most memory held so far: of a GPU, or of a process."""

from __future__ import annotations

from pathlib import Path

import torch


def peak_memory_gib(device: torch.device) -> float:
    """Of this process: allocated on the GPU, or resident where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_resident_gib()


def peak_resident_gib(process: int | str = "self") -> float:
    """Resident memory of a process at its most; 0 where it has ended, or the system does not tell.

    Not getrusage's ru_maxrss, which begins at the peak of the process that started this one.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    kibibytes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(kibibytes[0]) / 2**20 if kibibytes else 0.0
