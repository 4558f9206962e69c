"""One rank's engine in a process of its own, for tests that look into its gradients.

    python -m tests.pretrain.engine_program CONFIG MICRO_BATCHES OUT

Saves Adam's first moments and the weights after one step whose learning rate is 0, and how often
the step read a device's number on the host.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.batches import Batches
from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.engine import Engine
from pretrain.initialise import initialise
from pretrain.launch import Launch
from pretrain.main import end_process, resolve
from pretrain.model import LateMaskModel
from pretrain.ranks import join


class CountReads(TorchDispatchMode):
    """How often a number is read out of a tensor: what waits for a GPU."""

    reads = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def main(config_file: str, micro_batches: int, out: str) -> None:
    """Take two steps: the first makes the optimizer's state, the second is measured."""
    config = load_config(Path(config_file))
    data = ShardFolder(config.data.path)
    config = resolve(config, data)
    device = join(Launch(), run="test")
    model = LateMaskModel(config.model, config.masking)
    initialise(model, seed=0)
    engine = Engine(model, config, device)
    batches = Batches(
        data,
        seed=0,
        global_batch_size=config.data.global_batch_size,
        micro_batch_size=config.data.micro_batch_size,
    )
    assert batches.accumulation_steps(config.data.global_batch_size) == micro_batches
    batch = next(batches.steps(0, config.masking))
    engine.forward_backward(batch)
    engine.update(0.0, skip=False)
    moments = {f.name: f.values["exp_avg"].clone() for f in engine.fragments()}
    weights = {name: p.detach().float() for name, p in engine.module.named_parameters()}
    with CountReads() as counted:
        output = engine.forward_backward(batch)
        engine.sum_over_ranks([output.loss_sum, output.correct, 1.0])
        engine.update(0.0, skip=False)
    reads = counted.reads
    torch.save({"moments": moments, "weights": weights, "reads": reads}, out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    end_process(0)
