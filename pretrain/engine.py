"""A model under DeepSpeed: forward and backward, update, evaluation, and this rank's fragments.

Nothing here decides anything: `train.py` is the algorithm, `fault_tolerance/supervisor.py` the
decisions. This file and `zero.py` are the only ones that know DeepSpeed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from pretrain import zero
from pretrain.config import PretrainConfig
from pretrain.deepspeed_config import complete_deepspeed_config
from pretrain.errors import PretrainError
from pretrain.fault_tolerance.checkpoint import Fragment, WeightSource
from pretrain.masking import MaskedBatch
from pretrain.model import LateMaskModel
from pretrain.optim import parameter_groups
from pretrain.precision import choose_precision
from pretrain.ranks import has_compiler, on_main_process
from pretrain.recipe import OptimizerConfig
from pretrain.timing import Parts

logger = logging.getLogger(__name__)

T = TypeVar("T")


class StepOutput(NamedTuple):
    """What this rank's micro-batches gave; nothing has waited for the device yet."""

    loss_sum: Tensor  # [] fp64, of the predicted positions, before the update
    correct: Tensor  # [] fp64
    num_predicted: int


class Update(NamedTuple):
    """What became of a step, the same on all ranks."""

    applied: bool  # False: suppressed, or the gradient is NaN or infinite
    gradient_norm: Tensor | float  # before clipping


class Evaluation(NamedTuple):
    """Means over the predicted positions of all ranks' batches."""

    loss: float  # nats
    accuracy: float


class Engine:
    """A model under DeepSpeed ZeRO 0 to 3, and this rank's share of its state."""

    def __init__(self, model: LateMaskModel, config: PretrainConfig, device: torch.device) -> None:
        """Start DeepSpeed over `model`; its weights now are the ones that training starts from.

        Raises:
            PretrainError: a combination of settings that can't work.
        """
        self.device = device
        self.rank = torch.distributed.get_rank()
        self.num_ranks = torch.distributed.get_world_size()
        self.precision = choose_precision(config.run.precision, device)
        self.deepspeed_config = complete_deepspeed_config(config, self.num_ranks, self.precision)
        self.stage = self.deepspeed_config.get("zero_optimization", {}).get("stage", 0)
        self._check(config)
        self.optimizer = make_optimizer(model, config.optimizer)
        self.parameters = dict(model.named_parameters())
        self.parts = Parts(device, enabled=config.run.time_parts)
        self._suppressed = False
        self._norm: float | None = None
        self._clipping = config.optimizer.gradient_clipping
        self._wrap_update()
        self._set_learning_rate(0.0)  # DeepSpeed may take a step while it starts
        if config.run.gradient_checkpointing:
            for layer in (*model.layers, *model.late_layers):
                layer.forward = functools.partial(recompute, layer.forward, use_reentrant=False)
        if config.run.compile:
            self._compile(model)
        zero.turn_off_shared_memory()
        import deepspeed  # after zero.py, which chooses the accelerator

        try:
            # Its bf16 optimizer prints the machine's memory, six times over.
            with contextlib.redirect_stdout(io.StringIO()):
                self._engine, *_ = deepspeed.initialize(
                    model=model, optimizer=self.optimizer, config=self.deepspeed_config
                )
        except ValidationError as error:  # of a key that is the user's
            text = " ".join(str(error).split())
            raise PretrainError(f"run.deepspeed_config: DeepSpeed refuses it: {text}") from None

    def _check(self, config: PretrainConfig) -> None:
        muon = config.optimizer.name == "muon"
        if muon and self.stage == 3:
            raise PretrainError(
                "optimizer.name: under ZeRO-3 DeepSpeed's Muon keeps a momentum that can't be "
                "saved; take zero1.json or zero2.json"
            )
        if muon and not has_compiler():
            raise PretrainError(
                "optimizer.name: Muon's kernels are compiled, and there is no C++ compiler here; "
                "install one (Debian and Ubuntu: apt install g++), or take adamw"
            )
        if config.run.compile and self.stage == 3:
            raise PretrainError(
                "run.compile: ZeRO-3 fetches parameters between the layers, which one graph "
                "can't hold; set run.compile to false, or take zero1.json or zero2.json"
            )

    def _compile(self, model: LateMaskModel) -> None:
        if has_compiler():
            # The forward pass alone: around it are hooks of DeepSpeed that read the clock.
            compiled = torch.compile(model.forward, fullgraph=True, dynamic=False)
            model.forward = compiled  # type: ignore[method-assign]
        elif self.rank == 0:
            logger.warning("run.compile: no C++ compiler, so the step is not compiled")

    def _wrap_update(self) -> None:
        """Let `update` suppress a step, whichever ZeRO optimizer calls ours.

        DeepSpeed skips a step itself where the gradient is NaN or infinite, except under ZeRO-0 in
        fp32, where it keeps no norm either: there, norm and clipping are done here.
        """
        apply = self.optimizer.step
        plain = self.stage == 0
        if plain:
            self.deepspeed_config["gradient_clipping"] = 0.0

        @functools.wraps(apply)
        def step(*arguments: Any) -> None:
            if plain and not self._clip_gradients():
                return
            if not self._suppressed:
                apply(*arguments)

        self.optimizer.step = step  # type: ignore[method-assign,assignment]

    def _clip_gradients(self) -> bool:
        """Whether the gradient is finite; clips it where that is asked for."""
        parameters = list(self.parameters.values())
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._norm = norm.item()
        if math.isfinite(self._norm) and self._clipping:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._clipping, norm)
        return math.isfinite(self._norm)

    @property
    def module(self) -> LateMaskModel:
        """The model itself; under ZeRO-3 its parameters are partitioned outside `forward`."""
        return self._engine.module

    def forward_backward(self, micro_batches: list[MaskedBatch]) -> StepOutput:
        """Accumulate the gradient of this rank's micro-batches; the last one reduces it.

        Every predicted token weighs the same: 1 / (predicted positions of the global batch), with
        the positions that a sequence of many special tokens leaves unlabelled counted, too, so that
        no rank has to know the labels of the others.
        """
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.float64, device=self.device)
        for index, batch in enumerate(micro_batches):
            # Not left to DeepSpeed's count: steps may differ in their number of micro-batches.
            self._engine.set_gradient_accumulation_boundary(index == len(micro_batches) - 1)
            with self.parts("forward"):
                output = self._engine(*self._to_device(batch))
            with self.parts("backward"):
                # DeepSpeed takes the mean over ranks.
                mean = output.loss_sum / batch.labels.size / len(micro_batches)
                self._engine.backward(mean, scale_wrt_gas=False)
            loss_sum += output.loss_sum.detach()
            correct += output.correct
        num_predicted = sum(batch.num_predicted for batch in micro_batches)
        return StepOutput(loss_sum, correct, num_predicted)

    def update(self, learning_rate: float, *, skip: bool) -> Update:
        """The optimizer's step with the accumulated gradient; changes nothing with `skip`."""
        self._set_learning_rate(learning_rate)
        self._suppressed = skip
        with self.parts("update"):
            if skip:
                with zero.update_suppressed(self._engine.optimizer):
                    self._engine.step()
            else:
                self._engine.step()
        if self._norm is not None:
            return Update(not skip and math.isfinite(self._norm), self._norm)
        norm = self._engine.get_global_grad_norm()
        return Update(not skip and self._engine.was_step_applied(), norm)

    def sum_over_ranks(self, values: Sequence[float | Tensor]) -> list[float]:
        """The sums of numbers and [] tensors over the ranks, on the host: waits for the device."""
        numbers = [0.0 if isinstance(value, Tensor) else value for value in values]
        sums = torch.tensor(numbers, dtype=torch.float64).to(self.device)
        for index, value in enumerate(values):
            if isinstance(value, Tensor):
                sums[index] = value
        torch.distributed.all_reduce(sums)
        return sums.tolist()

    def on_main_process(self, find: Callable[[], T]) -> T:
        """What `find` gives on rank 0, on all ranks; its exceptions, too."""
        return on_main_process(find)

    @torch.no_grad()
    def evaluate(self, batches: list[MaskedBatch]) -> Evaluation:
        """Mean loss and accuracy over all ranks' `batches`; each rank passes its own, as many."""
        self._engine.eval()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.float64, device=self.device)
        # Other shapes than training's: compiling for them would cost more than it saves.
        with torch.compiler.set_stance("force_eager"):
            for batch in batches:
                output = self._engine(*self._to_device(batch))
                loss_sum += output.loss_sum
                correct += output.correct
        self._engine.train()
        num_predicted = sum(batch.num_predicted for batch in batches)
        loss, right, count = self.sum_over_ranks([loss_sum, correct, num_predicted])
        if count == 0:
            return Evaluation(math.nan, math.nan)
        return Evaluation(loss / count, right / count)

    def fragments(self) -> list[Fragment]:
        """This rank's share of the fp32 weights and moments, as views."""
        return list(zero.fragments(self._engine.optimizer, self.optimizer, self.parameters))

    def shapes(self) -> dict[str, list[int]]:
        """Every parameter's, by name."""
        return {n: list(getattr(p, "ds_shape", p.shape)) for n, p in self.parameters.items()}

    @property
    def adam_steps(self) -> int:
        """Updates made: Adam's count for its bias correction."""
        steps = [int(state["step"]) for state in self.optimizer.state.values() if "step" in state]
        return max(steps, default=0)

    def load(self, source: WeightSource) -> None:
        """Take over weights and moments, saved by any number of ranks under any ZeRO stage."""
        if not self.optimizer.state:
            self._make_optimizer_state()
        zero.load(source, self._engine.optimizer, self.optimizer, self.parameters)

    def _make_optimizer_state(self) -> None:
        """A step that moves nothing: the optimizer has no state before its first one."""
        self._set_learning_rate(0.0)
        self._suppressed = False
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.device)
        positions = torch.arange(3, device=self.device)[None]
        self._engine.set_gradient_accumulation_boundary(True)
        with torch.compiler.set_stance("force_eager"):
            output = self._engine(ids, positions, ids[:, :1])
            self._engine.backward(output.loss_sum * 0.0)
            self._engine.step()

    def close(self) -> None:
        """Give the memory back, for another engine in this process."""
        self._engine.destroy()
        self.parameters.clear()
        del self._engine, self.optimizer
        gc.collect()

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]

    def _to_device(self, batch: MaskedBatch) -> list[Tensor]:
        pinned = self.device.type == "cuda"
        tensors = [torch.from_numpy(array) for array in batch]
        if pinned:
            tensors = [tensor.pin_memory() for tensor in tensors]
        return [tensor.to(self.device, non_blocking=pinned) for tensor in tensors]


def make_optimizer(model: LateMaskModel, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Fused AdamW over `parameter_groups`, or DeepSpeed's Muon beside it.

    torch's own Muon takes matrices only, and ZeRO leaves it flat ranges of them; DeepSpeed's puts
    them together for the update, under ZeRO-0 to -2.
    """
    groups = parameter_groups(model, config)
    adam = {"betas": config.betas, "eps": config.eps}
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True, **adam)  # type: ignore[arg-type]
    # Imported here, since this compiles its kernels.
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    for group in groups:
        group |= {"momentum": config.muon_momentum} if group["use_muon"] else adam
        group["lr"] = config.lr * group["lr_scale"]
        for parameter in group["params"]:
            parameter.use_muon = group["use_muon"]  # where ZeRO looks
    return MuonWithAuxAdam(groups, torch.optim.AdamW, {"fused": True, **adam})
