"""What DeepSpeed keeps private, for `engine.py` alone: one rank's weights and moments under ZeRO.

Under every stage the fragments of all ranks together are the whole model, each element once, so
that saving copies 1/N of it on each of N ranks without a collective, and loading reads as little.
DeepSpeed 0.19 keeps them here:

    ZeRO-0 (fp32)   the parameters themselves, the same on every rank: dealt out evenly
    ZeRO-1 and -2   a range of each group's flattened fp32 copy; `param._hp_mapping` says which
    ZeRO-3          an equal share of each flattened parameter, padded at its end

The working copies, which the forward pass reads, are bf16 or fp32 and stand apart from these.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pretrain.fault_tolerance.checkpoint import KINDS, MOMENTS, Fragment, WeightSource

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when DeepSpeed is imported


def turn_off_shared_memory() -> None:
    """Keep DeepSpeed from building and loading its CPU collectives in shared memory.

    Training never calls them (they serve inference), but each start would wait for the lock of
    their build, and their buffers need room in /dev/shm and outlive the process.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def fragments(
    zero: Any,
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    *,
    replicas: bool = False,
) -> Iterator[Fragment]:
    """This rank's fragments, in the order of `parameters`.

    Args:
        zero: DeepSpeed's optimizer (`engine.optimizer`).
        optimizer: the one that it wraps, or the same where it wraps none.
        parameters: all of the model, by name.
        replicas: under ZeRO-0, all that this rank has, instead of the share that is its to save.
    """
    rank = torch.distributed.get_rank()
    num_ranks = torch.distributed.get_world_size()
    if hasattr(zero, "_hp_optimizer_states_linked"):
        # ZeRO-1 and -2 link moments to parameters after the first group's first step, when those of
        # the other groups do not exist yet: link them again.
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()
    total = sum(parameter.numel() for parameter in parameters.values())
    first = total * rank // num_ranks
    last = total * (rank + 1) // num_ranks
    passed = 0
    for name, parameter in parameters.items():
        if hasattr(parameter, "ds_id"):
            yield from _zero3(name, parameter, rank)
        elif hasattr(parameter, "_hp_mapping"):
            yield from _zero12(name, parameter)
        else:
            count = parameter.numel()
            begin = 0 if replicas else min(max(first - passed, 0), count)
            end = count if replicas else min(max(last - passed, 0), count)
            passed += count
            if begin < end:
                state = optimizer.state.get(parameter, {})
                whole = {"weight": parameter} | {key: state[key] for key in MOMENTS if key in state}
                values = {kind: v.detach().view(-1)[begin:end] for kind, v in whole.items()}
                yield Fragment(name, begin, values)


@torch.no_grad()
def load(
    source: WeightSource,
    zero: Any,
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
) -> None:
    """Set fp32 weights, moments, the count of updates and the working copies to those of `source`.

    The optimizer must have its state already.
    """
    for fragment in fragments(zero, optimizer, parameters, replicas=True):
        saved = source.kinds(fragment.name)
        for kind, value in fragment.values.items():
            if kind in saved:
                value.copy_(source.read(kind, fragment.name, fragment.start, len(fragment)))
            else:
                value.zero_()  # saved before the first update
    for name, parameter in parameters.items():
        _load_working_copy(source, name, parameter)
    for state in optimizer.state.values():
        if "step" in state:
            device = state["step"].device
            state["step"] = torch.as_tensor(float(source.adam_steps), device=device)


def _load_working_copy(source: WeightSource, name: str, parameter: Any) -> None:
    """What the forward pass reads; DeepSpeed refreshes it after its own updates only."""
    count = getattr(parameter, "ds_numel", parameter.numel())
    if hasattr(parameter, "ds_id"):
        share = parameter.partition_numel()
        start = torch.distributed.get_rank() * share
        own = min(share, count - start)
        if own > 0:
            parameter.ds_tensor.data[:own].copy_(source.read("weight", name, start, own))
    if parameter.numel() == count:  # under ZeRO-3: a small one, which every rank keeps whole
        parameter.data.copy_(source.read("weight", name, 0, count).view(parameter.shape))


@contextmanager
def update_suppressed(zero: Any) -> Iterator[None]:
    """Let the step inside leave Muon's momentum alone; the caller suppresses the weights' update.

    DeepSpeed advances the momentum before it calls the optimizer: in place with bf16 under ZeRO-1,
    else in a staging buffer that is committed before the update.
    """
    getattr(zero, "_muon_pending_momentum", {}).clear()
    uses_muon = getattr(zero, "_uses_muon", False)
    if uses_muon:
        zero._uses_muon = False
    try:
        yield
    finally:
        if uses_muon:
            zero._uses_muon = True


def _zero12(name: str, parameter: Any) -> Iterator[Fragment]:
    mapping = parameter._hp_mapping
    if mapping is not None:
        moments = mapping.optim_fragment or {}
        values = {"weight": mapping.hp_fragment} | {k: moments[k] for k in MOMENTS if k in moments}
        start = mapping.lp_fragment_address.start
        yield Fragment(name, start, {kind: tensor.detach() for kind, tensor in values.items()})


def _zero3(name: str, parameter: Any, rank: int) -> Iterator[Fragment]:
    zero = parameter._z3_optimizer
    share = parameter.partition_numel()
    start = rank * share
    count = min(share, parameter.ds_numel - start)
    if count <= 0:
        return
    values = {}
    for kind in KINDS:
        key = None if kind == "weight" else kind
        try:
            partition, _ = zero._get_fp32_opt_state_partition(
                parameter, release_swap_buffers=False, optim_state_key=key
            )
        except KeyError:  # no update yet
            continue
        values[kind] = partition.detach()[:count]
    yield Fragment(name, start, values)
