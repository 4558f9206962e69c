"""A model under DeepSpeed: its JSON completed, a step, its state in full, words to other ranks."""

from __future__ import annotations

import json
import logging
import resource
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import PretrainConfig, PretrainError
from pretrain.masking import MaskedRows
from pretrain.model import LateMaskModel
from pretrain.optim import make_optimizer
from pretrain.ranks import choose_precision, has_compiler

logger = logging.getLogger(__name__)

MOMENTS = ("exp_avg", "exp_avg_sq")
_FILLED_IN = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16",
    "optimizer",
    "scheduler",
)


class Engine:
    """A model under DeepSpeed ZeRO 0 to 3: forward, backward, step, and its state in full."""

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
        self.names = dict(model.named_parameters())
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

    @property
    def module(self) -> LateMaskModel:
        """The model itself; under ZeRO-3 its parameters are partitioned outside `forward`."""
        return self._engine.module

    def step(self, micro_batches: list[MaskedRows], lr: float) -> tuple[Tensor, Tensor]:
        """One optimizer step.

        Returns:
            [2] loss and accuracy, averaged over this rank's predicted positions, and the gradient
            norm []; both on the device, so that nothing waits for it.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        sums = torch.zeros(2, device=self.device)
        predicted = 0
        for batch in micro_batches:
            output = self._engine(*self._to_device(batch))
            # Every micro-batch has the same number of targets (fixed counts), so the mean over
            # micro-batches and ranks that DeepSpeed takes is the mean over all targets.
            self._engine.backward(output.loss_sum / batch.labels.size)
            self._engine.step()
            sums += torch.stack([output.loss_sum.detach(), output.correct.float()])
            predicted += batch.labels.size
        norm = self._engine.get_global_grad_norm()
        return sums / predicted, torch.as_tensor(norm if norm is not None else float("nan"))

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

    def mean(self, values: Tensor) -> list[float]:
        """The mean of `values` over the ranks, on the host: waits for the device."""
        values = values.to(self.device, torch.float64)
        torch.distributed.all_reduce(values)
        return (values / self.num_ranks).tolist()

    def from_first(self, value: float) -> float:
        """Rank 0's `value` on all ranks."""
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return shared.item()

    def peak_memory_gib(self) -> float:
        """Most memory that this rank has held: of the GPU, or resident where there is none."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        shared = torch.tensor(int(flag), device=self.device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return bool(shared.item())

    def gather_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Full fp32 weights by name, and Adam's moments as `exp_avg.NAME`, `exp_avg_sq.NAME`.

        Collective. Only rank 0 keeps the result (on the CPU); the others get empty dicts.
        """
        self._link_moments()
        weights: dict[str, Tensor] = {}
        moments: dict[str, Tensor] = {}
        for name, parameter in self.names.items():
            values = {name: self._full_weight(parameter)}
            values |= {f"{key}.{name}": self._full_moment(parameter, key) for key in MOMENTS}
            if self.rank == 0:
                cpu = {key: value.detach().float().cpu().clone() for key, value in values.items()}
                weights[name] = cpu.pop(name)
                moments |= cpu
        return weights, moments

    def restore_moments(self, moments: dict[str, Tensor], adam_steps: int) -> None:
        """Put back what `gather_state` took, on any number of ranks and under any ZeRO stage."""
        self._materialise_moments()
        self._link_moments()
        for name, parameter in self.names.items():
            for key in MOMENTS:
                self._set_moment(parameter, key, moments[f"{key}.{name}"])
        for state in self.optimizer.state.values():
            state["step"] = torch.as_tensor(float(adam_steps), device=state["step"].device)

    def _materialise_moments(self) -> None:
        """Take a step that moves nothing: the optimizer has no state before its first one."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        batch = self._dummy_batch()
        for _ in range(self._engine.gradient_accumulation_steps()):
            output = self._engine(*batch)
            self._engine.backward(output.loss_sum * 0.0)
            self._engine.step()

    def _link_moments(self) -> None:
        """ZeRO-1 and -2 link moments to parameters after the first group's first step, when those
        of the other groups do not exist yet (DeepSpeed 0.19.8): link them again.
        """
        zero = self._engine.optimizer
        if hasattr(zero, "_hp_optimizer_states_linked"):
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()

    def _dummy_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.device)
        return ids, torch.arange(3, device=self.device)[None], ids[:, :1]

    def _full_weight(self, parameter: nn.Parameter) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param

        full = safe_get_full_fp32_param(parameter)
        return parameter.data if full is None else full

    def _full_moment(self, parameter: nn.Parameter, key: str) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        full = safe_get_full_optimizer_state(parameter, key)
        return self.optimizer.state[parameter][key] if full is None else full

    def _set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        value = value.to(self.device)
        if hasattr(parameter, "ds_id"):  # ZeRO-3: pad as its partitions are padded
            zero3: Any = parameter._z3_optimizer  # type: ignore[attr-defined]
            padded = parameter.partition_numel() * self.num_ranks  # type: ignore[attr-defined]
            flat = F.pad(value.flatten(), (0, padded - value.numel()))
            local = flat.chunk(self.num_ranks)[self.rank]
            zero3.set_local_hp_param(local, parameter, key)
        elif hasattr(parameter, "_hp_mapping"):
            safe_set_full_optimizer_state(parameter, value, key)
        else:
            self.optimizer.state[parameter][key].copy_(value)

    def _to_device(self, batch: MaskedRows) -> list[Tensor]:
        pinned = self.device.type == "cuda"
        tensors = [torch.from_numpy(array) for array in batch]
        if pinned:
            tensors = [tensor.pin_memory() for tensor in tensors]
        return [tensor.to(self.device, non_blocking=pinned) for tensor in tensors]


def complete_deepspeed_config(
    config: PretrainConfig, num_ranks: int, precision: str
) -> dict[str, Any]:
    """The user's DeepSpeed JSON with batch sizes, clipping and precision filled in.

    Raises:
        PretrainError: the file is missing, no JSON, or sets what this config already says.
    """
    path = Path(config.run.deepspeed_config)
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise PretrainError(f"run.deepspeed_config: {path} does not exist") from None
    except json.JSONDecodeError as error:
        raise PretrainError(f"{path}: no valid JSON: {error}") from None
    if twice := [key for key in _FILLED_IN if key in content]:
        raise PretrainError(
            f"{path} sets {', '.join(twice)}; these come from the run's own config "
            "(data.*, optimizer.*, run.precision): remove them there"
        )
    data = config.data
    return content | {
        "train_batch_size": data.global_batch_size,
        "train_micro_batch_size_per_gpu": data.micro_batch_size,
        "gradient_accumulation_steps": data.global_batch_size
        // (data.micro_batch_size * num_ranks),
        "gradient_clipping": config.optimizer.gradient_clipping,
        "bf16": {"enabled": precision == "bf16"},
        "steps_per_print": 10**12,  # its own log lines; ours are in metrics.py
    }
