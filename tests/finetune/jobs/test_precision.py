"""bf16 is taken where it is faster, by a product of another size."""

import pytest
import torch
from torch.utils.benchmark import Timer

from finetune.jobs.precision import bf16_is_fast


@pytest.fixture(autouse=True)
def measured_anew() -> None:
    bf16_is_fast.cache_clear()


def test_a_cpu_takes_what_it_multiplies_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        factor = torch.randn(384, 384, dtype=dtype)
        timer = Timer("factor @ factor", globals={"factor": factor}, num_threads=1)
        seconds[dtype] = min(timer.timeit(1).mean for _ in range(9))
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    if 0.8 < ratio < 1.25:
        pytest.skip(f"bf16 is {ratio:.2f} times as fast as fp32 here: either may be taken")
    assert bf16_is_fast() == (ratio > 1)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("made_for_it", [True, False])
def test_a_gpu_takes_it_where_it_is_made_for_it(
    monkeypatch: pytest.MonkeyPatch, made_for_it: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # Older ones emulate it; what the processor can do is no help to them.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: including_emulation or made_for_it,
    )
    assert bf16_is_fast() == made_for_it
