"""Many tasks on one resident backbone.

The backbone's weights are held once and never change; each task is its mask, less than half a bit
per weight at 5 % zeros, and its head. A layer masks its weight just before it multiplies; what
lies below all masks is computed once for all the tasks of a text.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from finetune.errors import FinetuneError
from finetune.masks.apply import auto_class, from_checkpoint, head_fields
from finetune.masks.folder import MaskFolder
from finetune.masks.identity import base_prefix, is_under, weights_sha256
from finetune.masks.layer import masked_weight
from finetune.masks.method import other_weights
from finetune.serving.lowest_blocks import LowestBlocks
from finetune.serving.resident_layer import Dropped, ResidentLinear, Turn, elements_of

Weights = dict[str, torch.Tensor]


@dataclass
class ResidentTask:
    """One mask on the shared backbone. `dropped` and `own` are by the base's names."""

    folder: MaskFolder
    model: PreTrainedModel
    dropped: dict[str, tuple[Dropped, int]]
    """By layer; with each the elements of its mask."""
    own: Weights
    unmasked_blocks: int = 0
    """The lowest ones, which compute the same as without a mask."""

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the logits; empty for a regression."""
        return self.folder.config.labels or []


class Resident:
    """One backbone and K masks; `logits` answers for any of them.

    `folders` are mask folders learned on `backbone` (a folder or Hub name), each named by its task,
    or by its path where two have the same one. Calls from several threads wait for each other.
    """

    def __init__(
        self, backbone: str, folders: Sequence[MaskFolder], device: torch.device | str = "cpu"
    ) -> None:
        dtypes = {folder.config.frozen_dtype for folder in folders}
        if len(dtypes) > 1:
            raise FinetuneError(
                f"frozen_dtype: the masks were learned on weights in {sorted(map(str, dtypes))}; "
                "those of one backbone have to agree."
            )
        self.base, loading = from_checkpoint(AutoModel, backbone, output_loading_info=True)
        if any(name.startswith("pooler.") for name in loading["missing_keys"]):
            own_pooler = any(".pooler." in name for folder in folders for name in folder.own())
            if not own_pooler and hasattr(self.base, "pooler"):
                self.base.pooler = None  # random, and no task reads it
        self.device = torch.device(device)
        self.tasks: dict[str, ResidentTask] = {}
        self._backbone = backbone
        self._pretrained: dict[tuple[str, int], Weights] = {}
        """Of the layers outside the base, by the model's class and number of labels."""
        self._lock = threading.Lock()
        hashes: dict[tuple[str, ...], str] = {}
        names = [folder.name for folder in folders]
        for folder in folders:
            name = folder.name if names.count(folder.name) == 1 else str(folder.path)
            if name in self.tasks:
                raise FinetuneError(f"{folder.path} is given twice.")
            self.tasks[name] = self._add(folder, hashes)
        (dtype,) = dtypes or {None}
        if dtype is not None:
            for task in self.tasks.values():
                task.model.to(getattr(torch, dtype))
        self.base.to(self.device).eval().requires_grad_(False)
        self._parameters = dict(self.base.named_parameters())
        self._blocks = LowestBlocks(self.base)
        for task in self.tasks.values():
            task.unmasked_blocks = self._blocks.unmasked([*task.dropped, *task.own])
        self._turn = Turn(task=None, buffer=torch.empty(0))
        self._put_masks()

    def _put_masks(self) -> None:
        """Make the base's layers mask themselves; of a single task for good."""
        layers = {name for task in self.tasks.values() for name in task.dropped}
        if len(self.tasks) == 1:
            (task,) = self.tasks.values()
            for name, (dropped, count) in task.dropped.items():
                dropped.clear(elements_of(self.base.get_submodule(name).weight.data, count))
            return
        sizes = [self.base.get_submodule(name).weight.numel() for name in layers]
        largest = max(sizes, default=0)
        self._turn.buffer = torch.empty(largest, dtype=self.base.dtype, device=self.device)
        for name in layers:
            layer = ResidentLinear(self.base.get_submodule(name), self._turn)
            layer.masks = {
                t: task.dropped[name] for t, task in self.tasks.items() if name in task.dropped
            }
            self.base.set_submodule(name, layer)

    def _add(self, folder: MaskFolder, hashes: dict[tuple[str, ...], str]) -> ResidentTask:
        """A task's model around the shared base, with the identity of the base checked."""
        config = AutoConfig.from_pretrained(self._backbone, **head_fields(folder))
        config.pad_token_id = getattr(self.base.config, "pad_token_id", None)
        auto = auto_class(folder.config.model_class)
        with torch.device("meta"):
            model = auto.from_config(config)
        prefix = base_prefix(model)
        own = folder.own()
        heads = folder.config.head_modules or []
        # Of this model's own base: the shared one may have a pooler besides.
        plain = [name for name, _ in model.named_parameters() if not is_under(name, heads)]
        base = getattr(model, prefix)
        if type(base) is not type(self.base):
            raise FinetuneError(
                f"A {type(model).__name__} is built on {type(base).__name__}, the shared base is "
                f"a {type(self.base).__name__}; merge the mask with `python -m finetune.maskfile "
                "merge` instead."
            )
        for name, module in base.named_children():
            # GTE's classifier has a pooler, its base as AutoModel makes it hasn't.
            is_own = any(key.startswith(f"{prefix}.{name}.") for key in own)
            if is_own and getattr(self.base, name, None) is None:
                setattr(self.base, name, module.to_empty(device="cpu"))
        setattr(model, prefix, self.base)
        self._fill(model, prefix, own, auto, config)
        self._check(folder, model, plain, hashes)
        dropped = self._masks(folder, model, own)
        parameters = dict(model.named_parameters())
        inner = {}
        for name, tensor in own.items():
            if name.startswith(f"{prefix}."):
                inner[name.removeprefix(f"{prefix}.")] = tensor.to(self.device)
            else:
                parameters[name].data = tensor.to(self.device)
        model.eval().requires_grad_(False)
        return ResidentTask(folder, model, dropped, inner)

    def _check(
        self,
        folder: MaskFolder,
        model: PreTrainedModel,
        plain: list[str],
        hashes: dict[tuple[str, ...], str],
    ) -> None:
        """FinetuneError unless the mask is whole and was learned on the weights named `plain`."""
        found = hashes.get(tuple(plain))
        if found is None:
            prefix = f"{base_prefix(model)}."
            parameters = dict(model.named_parameters())
            absent = [name for name in plain if name not in parameters]
            if absent:
                raise FinetuneError(
                    f"{folder.path}: learned on weights with {absent[0]}, which {self._backbone} "
                    "hasn't got. Name the model it was learned on; if that hasn't either, they "
                    "were random and aren't stored: train the mask again."
                )
            found = weights_sha256((n.removeprefix(prefix), parameters[n]) for n in plain)
            hashes[tuple(plain)] = found
        if folder.config.base_sha256 != found:
            raise other_weights(folder.config, found)
        folder.verify()

    def _masks(
        self, folder: MaskFolder, model: PreTrainedModel, own: Weights
    ) -> dict[str, tuple[Dropped, int]]:
        """The masks of the base's layers; what else has a mask gets it for good."""
        prefix = f"{base_prefix(model)}."
        dropped = {}
        for name, coded in folder.coded():
            weight = f"{name}.weight"
            positions = folder.dropped(name, coded)
            count = math.prod(folder.shape(name))
            if weight not in own and name.startswith(prefix):
                dropped[name.removeprefix(prefix)] = Dropped(positions, count, self.device), count
                continue
            mask = torch.ones(count, dtype=torch.bool)
            mask[torch.from_numpy(positions).long()] = False
            mask = mask.view(folder.shape(name))
            if weight in own:
                own[weight] = masked_weight(own[weight], mask)
            else:  # a pretrained layer outside the base
                parameter = model.get_parameter(weight)
                parameter.data = masked_weight(parameter.data, mask)
        return dropped

    def _fill(
        self, model: PreTrainedModel, prefix: str, own: Weights, auto: Any, config: Any
    ) -> None:
        """Values for the layers outside the base: the file's, or else the pretrained ones."""
        outside = [n for n, p in model.named_parameters() if p.is_meta]
        kind = (type(model).__name__, config.num_labels)
        if set(outside) - set(own) and kind not in self._pretrained:
            donor = from_checkpoint(
                auto, self._backbone, config=config, ignore_mismatched_sizes=True
            )
            # Copies, since one tensor that is mapped from the file would hold all of it.
            self._pretrained[kind] = {
                n: p.data.clone() for n, p in donor.named_parameters() if n in outside
            }
        for name in outside:
            parent, _, leaf = name.rpartition(".")
            value = own[name] if name in own else self._pretrained[kind][name]
            module = model.get_submodule(parent)
            setattr(module, leaf, nn.Parameter(value.to(self.device), requires_grad=False))

    def logits(
        self, tasks: Sequence[str], inputs: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The output of each of `tasks` for one batch of model inputs, fp32 on the CPU.

        The blocks that no mask of `tasks` touches are computed once.
        """
        order = sorted(tasks, key=lambda name: -self.tasks[name].unmasked_blocks)
        found = {}
        with self._lock, torch.inference_mode():
            batch = {name: tensor.to(self.device) for name, tensor in inputs.items()}
            try:
                for name in order:
                    below = self.tasks[name].unmasked_blocks
                    if name != order[0]:
                        self._blocks.replay(below)
                    elif len(order) > 1:
                        self._blocks.keep(below)
                    found[name] = self._forward(name, batch).float().cpu()
            finally:
                self._blocks.forget()
        return {name: found[name] for name in tasks}

    def _forward(self, name: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        task = self.tasks[name]
        self._turn.task = name
        with self._own_weights(task):
            logits: torch.Tensor = task.model(**batch).logits
        return logits

    @contextmanager
    def _own_weights(self, task: ResidentTask) -> Iterator[None]:
        """With the weights in the base that the task has for itself, as GTE's pooler."""
        plain = {name: self._parameters[name].data for name in task.own}
        try:
            for name, tensor in task.own.items():
                self._parameters[name].data = tensor.to(self.base.dtype)
            yield
        finally:
            for name, tensor in plain.items():
                self._parameters[name].data = tensor
