"""The engine in bf16: ZeRO stages against fp32, accumulation, compilation, waits, a save's copy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretrain.engine import Engine
from pretrain.fault_tolerance.checkpoint import copy_into, layout
from pretrain.masking import MaskedBatch
from tests.gpu.conftest import MASKING, make_batch, make_model

BETA1 = 0.9  # OptimizerConfig's default
LEARNING_RATE = 3e-3
MICRO_BATCHES = 32


def train(engine: Engine, steps: int) -> list[float]:
    """The loss of each step on one batch, seen again and again."""
    batch = make_batch(16)
    losses = []
    for _ in range(steps):
        output = engine.forward_backward([batch])
        engine.update(LEARNING_RATE, skip=False)
        losses.append(float(output.loss_sum) / output.num_predicted)
    return losses


@pytest.fixture(scope="module")
def reference(device: torch.device) -> list[float]:
    """The losses of a plain loop in fp32, without DeepSpeed."""
    model = make_model().to(device)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.01},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE.full,
        betas=(BETA1, 0.98),
        eps=1e-6,
    )
    batch = make_batch(16)
    losses = []
    for _ in range(8):
        loss = loss_of(model, batch, device) / batch.labels.size
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def loss_of(model: torch.nn.Module, batch: MaskedBatch, device: torch.device) -> Tensor:
    return model(*(torch.from_numpy(array).to(device) for array in batch)).loss_sum


@pytest.mark.parametrize(
    ("zero", "compiled"),
    [
        *[("zero1", False), ("zero1", True), ("zero2", False), ("zero2", True)],
        *[("zero2_offload", False), ("zero3", False)],
    ],
)
def test_losses_in_bf16_follow_those_in_fp32(
    make_engine: Callable[..., Engine], reference: list[float], zero: str, compiled: bool
) -> None:
    losses = train(make_engine(zero, compiled=compiled), len(reference))
    assert losses == pytest.approx(reference, rel=0.01)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("zero", ["zero1", "zero2", "zero3"])
def test_micro_batches_are_summed_in_fp32(
    make_engine: Callable[..., Engine], device: torch.device, zero: str
) -> None:
    """The sum of 32 bf16 gradients is theirs in fp64; a sum in bf16 is off by far more."""
    micro_batches = [make_batch(2, start=2 * index) for index in range(MICRO_BATCHES)]
    model = make_model().to(device).bfloat16()
    exact = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    in_bf16 = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for batch in micro_batches:
        (loss_of(model, batch, device) / batch.labels.size / MICRO_BATCHES).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                exact[name] += parameter.grad.double()
                in_bf16[name] += parameter.grad
        model.zero_grad()

    summed = gradient(make_engine(zero, batch_size=64, micro_batch_size=2), micro_batches)
    assert relative_difference(summed, exact) < 1e-4
    assert relative_difference(in_bf16, exact) > 1e-3

    whole = gradient(make_engine(zero, batch_size=64, micro_batch_size=64), [make_batch(64)])
    assert relative_difference(whole, exact) < 0.01  # each micro-batch's is rounded to bf16


def gradient(engine: Engine, micro_batches: list[MaskedBatch]) -> dict[str, Tensor]:
    """What the optimizer gets, by parameter: its first moment after one update from zero."""
    engine.forward_backward(micro_batches)
    engine.update(0.0, skip=False)
    return {f.name: f.values["exp_avg"].clone() / (1 - BETA1) for f in engine.fragments()}


def relative_difference(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    assert found.keys() == exact.keys()
    square = sum(
        (found[name].double().flatten() - exact[name].flatten()).square().sum().item()
        for name in exact
    )
    return math.sqrt(square / sum(value.square().sum().item() for value in exact.values()))


def test_compilation_makes_one_graph_for_a_masking_stage(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine("zero1", compiled=True)
    counters = torch._dynamo.utils.counters
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(20):
            # As the loop does: another object each step, with the same values.
            engine.module.masking = MASKING.at(step / 20)
            engine.forward_backward([make_batch(16, start=16 * step)])
            engine.update(LEARNING_RATE, skip=False)
            if step == 10:
                engine.evaluate([make_batch(8)])
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize("compiled", [False, True])
def test_forward_and_backward_never_wait_for_the_device(
    cuda: torch.device,
    make_engine: Callable[..., Engine],
    record_property: Callable[[str, object], None],
    compiled: bool,
) -> None:
    engine = make_engine("zero1", compiled=compiled, batch_size=32, micro_batch_size=8)
    micro_batches = [make_batch(8, start=8 * index) for index in range(4)]
    for _ in range(2):  # the first steps load kernels and take memory
        engine.forward_backward(micro_batches)
        engine.update(LEARNING_RATE, skip=False)
    torch.cuda.synchronize(cuda)
    try:
        torch.cuda.set_sync_debug_mode("error")
        output = engine.forward_backward(micro_batches)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engine.sum_over_ranks([output.loss_sum, output.correct])
            engine.update(LEARNING_RATE, skip=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)
    record_property("waits_of_a_step_after_backward", waits)


def test_a_save_copies_what_is_on_the_device(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("zero1")
    train(engine, 2)
    share = engine.fragments()
    plain = torch.cat([value.cpu() for fragment in share for value in fragment.values.values()])
    buffer = torch.empty(sum(layout(share).values()), pin_memory=torch.cuda.is_available())
    copy_into(buffer, share)
    assert torch.equal(buffer.view(torch.uint8), plain.view(torch.uint8))
    assert plain.abs().max() > 0
