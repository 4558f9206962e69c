"""What the model asks of a GPU at the recipes' own shapes: flash attention, memory."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pretrain.recipe import MaskingConfig, ModelConfig
from tests.gpu.conftest import make_batch, make_model, model_config

VANILLA = MaskingConfig(rate=0.15)


def forward_backward(
    model: ModelConfig, masking: MaskingConfig, batch_size: int, device: torch.device
) -> Callable[[], float]:
    """A step in bf16 without an update; returns its loss."""
    module = make_model(model, masking).to(device).bfloat16()
    batch = make_batch(batch_size, masking, model)
    tensors = [torch.from_numpy(array).to(device) for array in batch]

    def step() -> float:
        loss = module(*tensors).loss_sum / batch.labels.size
        loss.backward()
        module.zero_grad()
        return loss.item()

    return step


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("recipe", ["vanilla", "paper", "cross", "recommended"])
def test_attention_runs_on_flash_kernels(cuda: torch.device, size: str, recipe: str) -> None:
    model, recommended = model_config(size)
    model.num_hidden_layers = 2
    paper = MaskingConfig(rate=0.5, insert_layer=2, late_layers=2)
    masking = {
        "vanilla": VANILLA,
        "paper": paper,
        "cross": MaskingConfig(rate=0.5, insert_layer=2, late_layers=2, late_attention="cross"),
        "recommended": recommended,
    }[recipe]
    if recipe == "recommended":
        masking.insert_layer = 1
    # Any other kernel is an error here.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        loss = forward_backward(model, masking, batch_size=2, device=cuda)()
    assert 0 < loss < 20


def test_the_recommended_recipe_needs_less_memory_than_vanilla(
    cuda: torch.device, record_property: Callable[[str, object], None]
) -> None:
    model, recommended = model_config("base")
    peaks = {}
    for name, masking in (("vanilla", VANILLA), ("recommended", recommended)):
        step = forward_backward(model, masking, batch_size=64, device=cuda)
        step()
        torch.cuda.reset_peak_memory_stats(cuda)
        step()
        peaks[name] = torch.cuda.max_memory_allocated(cuda) / 2**30
        record_property(f"peak_gib_{name}", round(peaks[name], 3))
        del step
        gc.collect()
        torch.cuda.empty_cache()
    assert peaks["recommended"] < peaks["vanilla"]
