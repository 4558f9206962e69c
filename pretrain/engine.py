"""A model under DeepSpeed: a step, an evaluation, words to other ranks."""

from __future__ import annotations

import functools
import gc
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from pretrain.config import PretrainConfig
from pretrain.deepspeed_config import complete_deepspeed_config
from pretrain.errors import PretrainError
from pretrain.fault_tolerance.checkpoint import Checkpoint
from pretrain.fault_tolerance.snapshot import Fragment, fragments, restore
from pretrain.masking import MaskedRows
from pretrain.model import LateMaskModel
from pretrain.optim import Rates, make_optimizer
from pretrain.precision import choose_precision
from pretrain.ranks import has_compiler
from pretrain.timing import Parts

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """What a step was like, the same on all ranks."""

    loss: float  # of all ranks' predicted positions, before the update
    accuracy: float
    gradient_norm: float  # before clipping
    fault: str | None  # why nothing was updated
    notes: list[float]  # summed over the ranks


class Engine:
    """A model under DeepSpeed ZeRO 0 to 3: forward, backward, step, and this rank's share of it."""

    def __init__(self, model: LateMaskModel, config: PretrainConfig, device: torch.device) -> None:
        """Start DeepSpeed over `model`, whose weights must already be the ones to start from.

        DeepSpeed copies them into its partitions here; later changes would not be seen.
        """
        import deepspeed

        self.device = device
        self.rank = torch.distributed.get_rank()
        self.num_ranks = torch.distributed.get_world_size()
        self.precision = choose_precision(config.run.precision, device)
        self.optimizer = make_optimizer(model, config.optimizer)
        self.deepspeed_config = complete_deepspeed_config(config, self.num_ranks, self.precision)
        self.stage = self.deepspeed_config.get("zero_optimization", {}).get("stage", 0)
        if self.stage == 3 and config.optimizer.name == "muon":
            raise PretrainError(
                "optimizer.name: under ZeRO-3 DeepSpeed's Muon keeps a momentum that can't be "
                "saved; take zero1.json or zero2.json"
            )
        if config.optimizer.name == "muon" and not has_compiler():
            raise PretrainError(
                "optimizer.name: Muon's kernels are compiled, and there is no C++ compiler here; "
                "install one (Debian and Ubuntu: apt install g++), or take adamw"
            )
        self.names = dict(model.named_parameters())
        self.parts = Parts(device, enabled=config.run.time_parts)
        self._guard_updates(config)
        self._set_rates(Rates(0.0, 0.0))  # DeepSpeed may take a step while it starts
        if config.run.gradient_checkpointing:
            for layer in (*model.layers, *model.late_layers):
                layer.forward = functools.partial(recompute, layer.forward, use_reentrant=False)
        if config.run.compile:
            if self.stage == 3:
                raise PretrainError(
                    "run.compile: ZeRO-3 fetches parameters between the layers, which one graph "
                    "can't hold; set run.compile to false, or take zero1.json or zero2.json"
                )
            if has_compiler():
                # The forward pass alone: around it are hooks of DeepSpeed that read the clock.
                compiled = torch.compile(model.forward, fullgraph=True, dynamic=False)
                model.forward = compiled  # type: ignore[method-assign]
            elif self.rank == 0:
                logger.warning("run.compile: no C++ compiler, so the step is not compiled")
        self._engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=self.optimizer,
            config=self.deepspeed_config,
            dist_init_required=False,
        )

    def _guard_updates(self, config: PretrainConfig) -> None:
        """Let a step be skipped, whichever ZeRO optimizer calls ours.

        DeepSpeed skips a step itself where the gradient is no finite number, but under ZeRO-0 in
        fp32, where it also keeps no norm: there, norm and clipping are done here.
        """
        self._fault: str | None = None
        self._norm: float | None = None
        update = self.optimizer.step
        plain = self.stage == 0 and self.precision == "fp32"
        clipping = config.optimizer.gradient_clipping
        if plain:
            self.deepspeed_config["gradient_clipping"] = 0.0

        @functools.wraps(update)
        def guarded(*arguments: Any) -> None:
            if plain:
                parameters = list(self.names.values())
                norm = torch.nn.utils.get_total_norm(
                    [p.grad for p in parameters if p.grad is not None]
                )
                self._norm = norm.item()
                if not math.isfinite(self._norm):
                    return
                if clipping:
                    torch.nn.utils.clip_grads_with_norm_(parameters, clipping, norm)
            if self._fault is None:
                update(*arguments)

        self.optimizer.step = guarded  # type: ignore[method-assign,assignment]

    @property
    def module(self) -> LateMaskModel:
        """The model itself; under ZeRO-3 its parameters are partitioned outside `forward`."""
        return self._engine.module

    def step(
        self,
        micro_batches: list[MaskedRows],
        rates: Rates,
        find_fault: Callable[[float], str | None] = lambda _loss: None,
        notes: list[float] | None = None,
    ) -> Step:
        """One optimizer step; nothing is updated if the gradient is no number.

        Args:
            micro_batches: this rank's.
            rates: learning rates.
            find_fault: given the loss, a reason to update nothing.
            notes: words to the other ranks that travel with the loss.
        """
        self._set_rates(rates)
        sums = torch.zeros(2, device=self.device)
        predicted = 0
        for index, batch in enumerate(micro_batches):
            with self.parts("forward"):
                output = self._engine(*self._to_device(batch))
            with self.parts("backward"):
                # Every micro-batch has the same number of targets (fixed counts), so the mean over
                # micro-batches and ranks that DeepSpeed takes is the mean over all targets.
                self._engine.backward(output.loss_sum / batch.labels.size)
            sums += torch.stack([output.loss_sum.detach(), output.correct.float()])
            predicted += batch.labels.size
            if index < len(micro_batches) - 1:
                self._engine.step()
        # DeepSpeed waits for the device here anyway, to look at the gradient's norm.
        told = torch.tensor(notes or [], dtype=torch.float64, device=self.device)
        loss_sum, correct, *answers = self._sum_over_ranks(torch.cat([sums.double(), told]))
        loss = loss_sum / (predicted * self.num_ranks)
        self._fault = find_fault(loss)
        if self._fault is not None:
            # Where ZeRO keeps Muon's next momentum, which it takes over before it calls the update.
            getattr(self._engine.optimizer, "_muon_pending_momentum", {}).clear()
        with self.parts("update"):
            self._engine.step()
        norm = self._norm if self._norm is not None else self._engine.get_global_grad_norm()
        norm = float("nan") if norm is None else float(norm)
        if self._fault is None and not math.isfinite(norm):
            self._fault = f"its gradient's norm is {norm}"
        return Step(loss, correct / (predicted * self.num_ranks), norm, self._fault, answers)

    def share(self) -> list[Fragment]:
        """This rank's part of the fp32 weights and moments, as views."""
        return list(fragments(self._engine.optimizer, self.optimizer, self.names))

    def shapes(self) -> dict[str, list[int]]:
        """Every parameter's, by name."""
        return {n: list(getattr(p, "ds_shape", p.shape)) for n, p in self.names.items()}

    @property
    def updates(self) -> int:
        """How many the optimizer has made: Adam's count for its bias correction."""
        return max(
            (int(state["step"]) for state in self.optimizer.state.values() if "step" in state),
            default=0,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of any number of ranks and any ZeRO stage.

        `checkpoint.load_into` must have set the model's weights before this engine was made: they
        are rounded to its precision by now, and get their fp32 values back here.
        """
        self._fault = None
        self._set_rates(Rates(0.0, 0.0))
        # A step that moves nothing: the optimizer has no state before its first one.
        with torch.compiler.set_stance("force_eager"):
            for _ in range(self._engine.gradient_accumulation_steps()):
                output = self._engine(*self._dummy_batch())
                self._engine.backward(output.loss_sum * 0.0)
                self._engine.step()
        restore(checkpoint, self._engine.optimizer, self.optimizer, self.names)

    def close(self) -> None:
        """Give the memory back, for another engine in this process."""
        self._engine.destroy()
        self.names.clear()
        del self._engine, self.optimizer
        gc.collect()

    @torch.no_grad()
    def evaluate(self, batches: list[MaskedRows]) -> tuple[float, float]:
        """Mean loss and accuracy over all ranks' `batches`; each rank passes its own, as many."""
        self._engine.eval()
        # Other shapes than training's: compiling for them would cost more than it saves.
        with torch.compiler.set_stance("force_eager"):
            sums = self._sums(batches)
        self._engine.train()
        torch.distributed.all_reduce(sums)
        return (sums[0] / sums[2]).item(), (sums[1] / sums[2]).item()

    def _sums(self, batches: list[MaskedRows]) -> Tensor:
        """[3] loss, correct and predicted positions, summed over `batches`."""
        sums = torch.zeros(3, device=self.device, dtype=torch.float64)
        for batch in batches:
            output = self._engine(*self._to_device(batch))
            predicted = sums.new_tensor(batch.labels.size)
            sums += torch.stack([output.loss_sum.double(), output.correct.double(), predicted])
        return sums

    def add_up(self, values: list[float]) -> list[float]:
        """The sums of `values` over the ranks, on the host: waits for the device."""
        return self._sum_over_ranks(torch.tensor(values, dtype=torch.float64, device=self.device))

    def _sum_over_ranks(self, values: Tensor) -> list[float]:
        torch.distributed.all_reduce(values)
        return values.tolist()

    def _set_rates(self, rates: Rates) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = getattr(rates, group["rate"]) * group["lr_scale"]

    def _dummy_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.device)
        return ids, torch.arange(3, device=self.device)[None], ids[:, :1]

    def _to_device(self, batch: MaskedRows) -> list[Tensor]:
        pinned = self.device.type == "cuda"
        tensors = [torch.from_numpy(array) for array in batch]
        if pinned:
            tensors = [tensor.pin_memory() for tensor in tensors]
        return [tensor.to(self.device, non_blocking=pinned) for tensor in tensors]
