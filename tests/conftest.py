"""What tests of more than one package measure of this machine."""

from __future__ import annotations

import pytest
import torch
from torch.utils.benchmark import Timer


@pytest.fixture
def bf16_speed() -> float:
    """Times as fast as fp32 on one thread of this CPU; skips where the two are too near to tell."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        factor = torch.randn(384, 384, dtype=dtype)
        timer = Timer("factor @ factor", globals={"factor": factor}, num_threads=1)
        seconds[dtype] = min(timer.timeit(1).mean for _ in range(9))
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    if 0.8 < ratio < 1.25:
        pytest.skip(f"bf16 is {ratio:.2f} times as fast as fp32 here: either may be taken")
    return ratio
