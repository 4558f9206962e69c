"""What is timed as one training step: our model in a recipe, or Hugging Face's, as a callable."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForMaskedLM

from benchmarks.machine import seconds_of
from pretrain.architectures import architecture_of
from pretrain.flops import TRAINING, feed_forward_width, head_flops, layer_flops, training_flops
from pretrain.initialise import initialise
from pretrain.masking import mask_sequences
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig, ModelConfig
from pretrain.vocabulary import Vocabulary

VANILLA = MaskingConfig(rate=0.15)


@dataclass(frozen=True)
class Variant:
    """One line of a table."""

    name: str
    masking: MaskingConfig | None
    """None: Hugging Face's model, at 15 %."""
    compiled: bool
    bf16: bool
    autocast: bool = False
    """With bf16: fp32 weights under autocast, as Hugging Face's Trainer has it; else bf16 weights
    with an fp32 copy for the update, as DeepSpeed has it."""
    attention: str | None = None
    """Hugging Face's attn_implementation, on RobertaForMaskedLM; None: its own choice, on the model
    with our kind of norm."""


def random_rows(config: ModelConfig, batch: int, seq_len: int) -> np.ndarray:
    """[batch, seq_len] random tokens between <s> and </s>."""
    rows = np.random.default_rng(0).integers(4, config.known_vocab_size - 1, size=(batch, seq_len))
    rows[:, 0], rows[:, -1] = 0, 2
    return rows


def make_step(
    variant: Variant,
    config: ModelConfig,
    rows: np.ndarray,
    device: torch.device,
    *,
    update: bool = False,
    backend: str = "inductor",
) -> Callable[[], None]:
    """A forward and backward pass on `rows` [B, T], with AdamW's update where that is asked for.

    Args:
        variant: which model, how it is run.
        config: its shape.
        rows: token ids.
        device: where.
        update: whether the weights are updated; else gradients are dropped.
        backend: torch.compile's.
    """
    model: nn.Module
    if variant.masking is None:
        with device:
            model = _hugging_face(variant, config)
        input_ids = torch.from_numpy(rows).to(device)
        labels = input_ids.clone()
        labels[torch.rand(labels.shape, device=device) > VANILLA.rate] = -100
        batch = {"input_ids": input_ids, "labels": labels}

        def loss() -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=variant.autocast):
                return run(**batch).loss

    else:
        with device:
            model = LateMaskModel(config, variant.masking)
        model.sequence_length = rows.shape[1]
        _draw_weights(model, device)
        masked = mask_sequences(
            rows, np.arange(len(rows)), masking=variant.masking,
            vocabulary=Vocabulary.robertas(config.known_vocab_size), seed=0, epoch=0,
        )  # fmt: skip
        tensors = [torch.from_numpy(array).to(device) for array in masked]

        def loss() -> torch.Tensor:
            return run(*tensors).loss_sum / masked.labels.size

    if variant.bf16 and not variant.autocast:
        model.bfloat16()
    run = torch.compile(model, dynamic=False, backend=backend) if variant.compiled else model
    apply = _make_update(list(model.parameters())) if update else None

    def step() -> None:
        loss().backward()
        if apply is not None:
            apply()
        model.zero_grad()

    return step


def _draw_weights(model: LateMaskModel, device: torch.device) -> None:
    """Those of a new run; on a GPU others of the same size, since drawing there takes no time."""
    if device.type == "cpu":
        initialise(model, seed=0)  # with torch's own draw softmax would meet denormal numbers
        return
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            nn.init.normal_(parameter, std=0.02)


def _hugging_face(variant: Variant, config: ModelConfig) -> nn.Module:
    if variant.attention is None:
        architecture = architecture_of(config)
        return architecture.make_stock_masked_lm(architecture.to_stock_config(config))
    if config.architecture == "roberta-prelayernorm":
        # It has no fused attention of its own; the arithmetic is the same.
        config = replace(config, architecture="roberta")
    hf_config = architecture_of(config).to_stock_config(config)
    # flash_attention_2 insists on a 16-bit model when it is made.
    dtype = torch.bfloat16 if variant.bf16 and not variant.autocast else torch.float32
    return AutoModelForMaskedLM.from_config(
        hf_config, attn_implementation=variant.attention, dtype=dtype
    )


def _make_update(parameters: list[nn.Parameter]) -> Callable[[], None]:
    """Fused AdamW, through an fp32 copy of bf16 weights as under ZeRO-1."""
    if parameters[0].dtype == torch.float32:
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        return lambda: optimizer.step()
    copies = [nn.Parameter(p.detach().float()) for p in parameters]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    optimizer = torch.optim.AdamW(copies, lr=1e-4, fused=True)

    @torch.no_grad()
    def update() -> None:
        pairs = [(c.grad, p.grad) for c, p in zip(copies, parameters, strict=True)]
        used = [(to, gradient) for to, gradient in pairs if to is not None and gradient is not None]
        torch._foreach_copy_([to for to, _ in used], [gradient for _, gradient in used])
        optimizer.step()
        torch._foreach_copy_([*parameters], [*copies])

    return update


def executed(variant: Variant, config: ModelConfig, seq_len: int) -> float:
    """FLOPs of one row; Hugging Face's head runs at every position."""
    if variant.masking is not None:
        return training_flops(config, variant.masking, seq_len)
    body = config.num_hidden_layers * layer_flops(
        seq_len, config.hidden_size, feed_forward_width(config)
    )
    return TRAINING * (body + head_flops(seq_len, config.hidden_size, config.known_vocab_size))


def interleaved(
    steps: Sequence[Callable[[], None]],
    repeats: int,
    device: torch.device,
    *,
    steps_at_once: int = 1,
    deadline: float = float("inf"),
) -> list[list[float]]:
    """Seconds of a step, for each of `steps` and each repeat; a noisy machine treats all alike.

    Args:
        steps: what to time.
        repeats: rounds over all of them.
        device: whose work is waited for.
        steps_at_once: between two waits for the device.
        deadline: of time.monotonic(), beyond which no round but the second may last.
    """
    seconds: list[list[float]] = [[] for _ in steps]
    for number in range(repeats):
        round_seconds = steps_at_once * sum(times[-1] for times in seconds if times)
        if number >= 2 and time.monotonic() + round_seconds > deadline:
            break
        for times, step in zip(seconds, steps, strict=True):

            def several(step: Callable[[], None] = step) -> None:
                for _ in range(steps_at_once):
                    step()

            times.append(seconds_of(several, device) / steps_at_once)
    return seconds


def median_and_spread(times: Sequence[float]) -> tuple[float, float]:
    """The median, and the distance between the quartiles as a share of it."""
    low, median, high = statistics.quantiles(times, n=4)
    return median, (high - low) / median
