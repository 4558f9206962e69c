"""What one rank trains: the stretches of fp32 weights and moments that DeepSpeed gave it.

Under every ZeRO stage the stretches of all ranks together are the whole model, each element once,
so that saving copies 1/N of it on each of N ranks without a collective, and restoring reads as
little. DeepSpeed 0.19.8 keeps them here:

    ZeRO-0, fp32    the parameters themselves, the same on every rank: dealt out evenly
    ZeRO-0, bf16    an fp32 copy of each parameter, dealt out likewise
    ZeRO-1 and -2   a stretch of each group's flattened fp32 copy; `param._hp_mapping` says which
    ZeRO-3          an equal share of each flattened parameter, padded at its end
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.fault_tolerance.checkpoint import KINDS, MOMENTS, Checkpoint


@dataclass(frozen=True)
class Fragment:
    """A stretch of one flattened parameter; its tensors are DeepSpeed's own, to read or to set."""

    name: str
    start: int
    values: dict[str, Tensor]
    """[n] by kind; a moment is missing before the first update."""

    def __len__(self) -> int:
        return self.values["weight"].numel()


def fragments(
    zero: Any,
    optimizer: torch.optim.Optimizer,
    names: dict[str, nn.Parameter],
    *,
    replicas: bool = False,
) -> Iterator[Fragment]:
    """This rank's share, in the order of `names`.

    Args:
        zero: DeepSpeed's optimizer (`engine.optimizer`).
        optimizer: the one that it wraps, or the same where it wraps none.
        names: all parameters of the model.
        replicas: under ZeRO-0, all that this rank has, instead of the share that is its to save.
    """
    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if hasattr(zero, "_hp_optimizer_states_linked"):
        # ZeRO-1 and -2 link moments to parameters after the first group's first step, when those of
        # the other groups do not exist yet: link them again.
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()
    copies = _fp32_copies(zero)
    whole = sum(parameter.numel() for parameter in names.values())
    first, last = whole * rank // num_ranks, whole * (rank + 1) // num_ranks
    passed = 0
    for name, parameter in names.items():
        if hasattr(parameter, "ds_id"):
            yield from _zero3(name, parameter, rank)
        elif hasattr(parameter, "_hp_mapping"):
            yield from _zero12(name, parameter)
        else:
            begin = 0 if replicas else min(max(first - passed, 0), parameter.numel())
            end = parameter.numel() if replicas else min(max(last - passed, 0), parameter.numel())
            passed += parameter.numel()
            if begin < end:
                master = copies.get(id(parameter), parameter)
                state = optimizer.state.get(master, {})
                values = {"weight": master} | {key: state[key] for key in MOMENTS if key in state}
                yield Fragment(
                    name, begin, {k: v.detach().view(-1)[begin:end] for k, v in values.items()}
                )


@torch.no_grad()
def restore(
    checkpoint: Checkpoint,
    zero: Any,
    optimizer: torch.optim.Optimizer,
    names: dict[str, nn.Parameter],
) -> None:
    """Set fp32 weights, moments and the count of updates to a checkpoint's.

    The optimizer must have its state already, and the working copies of the weights must be the
    checkpoint's: DeepSpeed would not see it if they changed here.
    """
    for fragment in fragments(zero, optimizer, names, replicas=True):
        saved = checkpoint.kinds(fragment.name)
        for kind, value in fragment.values.items():
            if kind in saved:
                value.copy_(checkpoint.read(kind, fragment.name, fragment.start, len(fragment)))
            else:
                value.zero_()  # saved before the first update
    for state in optimizer.state.values():
        if "step" in state:
            device = state["step"].device
            state["step"] = torch.as_tensor(float(checkpoint.state.adam_steps), device=device)


def layout(share: list[Fragment]) -> dict[str, int]:
    """`KIND/NAME@START` to number of elements: what a part of a checkpoint holds, in order."""
    return {f"{kind}/{f.name}@{f.start}": len(f) for f in share for kind in f.values}


def copy_into(buffer: Tensor, share: list[Fragment]) -> None:
    """Copy everything that `layout` names into `buffer` on the host, and wait for it."""
    position = 0
    for fragment in share:
        for value in fragment.values.values():
            buffer[position : position + len(fragment)].copy_(value, non_blocking=True)
            position += len(fragment)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _fp32_copies(zero: Any) -> dict[int, Tensor]:
    """id of a bf16 parameter -> its fp32 copy, under ZeRO-0."""
    groups = zip(getattr(zero, "fp16_groups", ()), getattr(zero, "fp32_groups", ()), strict=False)
    return {
        id(parameter): copy
        for parameters, copies in groups
        for parameter, copy in zip(parameters, copies, strict=True)
    }


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
