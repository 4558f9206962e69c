"""bf16 is taken where it is faster, by a product of another size."""

import pytest
import torch

from finetune.jobs.precision import bf16_is_fast


@pytest.fixture(autouse=True)
def measured_anew() -> None:
    bf16_is_fast.cache_clear()


def test_a_cpu_takes_what_it_multiplies_faster(
    monkeypatch: pytest.MonkeyPatch, bf16_speed: float
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    assert bf16_is_fast() == (bf16_speed > 1)
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
