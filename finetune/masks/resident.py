"""Many tasks on one resident backbone.

The backbone's weights are held once, in full; each task is its mask as it is stored (about a third
of a bit per weight) and its head. To answer for a task, the weights it drops are set to 0 in place
and put back for the next one: 5 % of the weights are touched, none is copied. `cached` tasks keep
their masked matrices instead and are switched to by pointer, for the price of their memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from finetune.errors import FinetuneError
from finetune.masks.apply import auto_class, from_checkpoint, head_fields
from finetune.masks.folder import MaskFolder
from finetune.masks.identity import base_prefix, is_under, weights_sha256
from finetune.masks.layer import masked_weight
from finetune.masks.method import other_weights

Weights = dict[str, torch.Tensor]


@dataclass
class ResidentTask:
    """One mask on the shared backbone. `coded` and `own` are by the base's parameter names."""

    folder: MaskFolder
    model: PreTrainedModel
    coded: dict[str, np.ndarray]
    own: Weights
    removed: list[tuple[str, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    """Layer, its weight as it was flattened, the values that the mask drops."""

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
        self,
        backbone: str,
        folders: Sequence[MaskFolder],
        cached: int = 0,
        device: torch.device | str = "cpu",
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
        self.cached = cached
        self.device = torch.device(device)
        self.tasks: dict[str, ResidentTask] = {}
        self._backbone = backbone
        self._active: str | None = None
        self._materialised: OrderedDict[str, Weights] = OrderedDict()
        self._plain: Weights = {}
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

    def _add(self, folder: MaskFolder, hashes: dict[tuple[str, ...], str]) -> ResidentTask:
        """A task's model around the shared base, with the identity of the base checked."""
        config = AutoConfig.from_pretrained(self._backbone, **head_fields(folder))
        config.pad_token_id = getattr(self.base.config, "pad_token_id", None)
        auto = auto_class(folder.config.model_class)
        with torch.device("meta"):
            model = auto.from_config(config)
        prefix = base_prefix(model)
        heads = folder.config.head_modules or []
        plain = [n for n, _ in model.named_parameters() if not is_under(n, heads)]
        own = folder.own()
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
        parameters = dict(model.named_parameters())
        found = hashes.get(tuple(plain))
        if found is None:
            found = weights_sha256((n.removeprefix(f"{prefix}."), parameters[n]) for n in plain)
            hashes[tuple(plain)] = found
        if folder.config.base_sha256 != found:
            raise other_weights(folder.config, found)
        folder.verify()
        coded = {}
        for name, bits in folder.coded():
            weight = f"{name}.weight"
            if weight in own:
                mask = torch.from_numpy(~self._dropped(folder, name, bits))
                own[weight] = masked_weight(own[weight], mask)
            elif name.startswith(f"{prefix}."):
                coded[name.removeprefix(f"{prefix}.")] = bits.copy()
            else:  # a pretrained layer outside the base
                mask = torch.from_numpy(~self._dropped(folder, name, bits))
                parameters[weight].data = masked_weight(parameters[weight].data, mask)
        inner = {}
        for name, tensor in own.items():
            if name.startswith(f"{prefix}."):
                inner[name.removeprefix(f"{prefix}.")] = tensor.to(self.device)
            else:
                parameters[name].data = tensor.to(self.device)
        model.eval().requires_grad_(False)
        return ResidentTask(folder, model, coded, inner)

    @staticmethod
    def _dropped(folder: MaskFolder, name: str, bits: np.ndarray) -> np.ndarray:
        """Boolean, True where the mask of layer `name` drops, in the mask's shape."""
        shape = folder.shape(name)
        zeros = np.zeros(int(np.prod(shape)), dtype=bool)
        zeros[folder.dropped(name, bits)] = True
        return zeros.reshape(shape)

    def _fill(
        self, model: PreTrainedModel, prefix: str, own: Weights, auto: Any, config: Any
    ) -> None:
        """Values for the layers outside the base: the file's, or else the pretrained ones."""
        outside = [n for n, p in model.named_parameters() if p.is_meta]
        pretrained: Weights = {}
        if set(outside) - set(own):
            donor = from_checkpoint(auto, self._backbone, config=config)
            pretrained = {n: p.data for n, p in donor.named_parameters() if n in outside}
        for name in outside:
            parent, _, leaf = name.rpartition(".")
            value = own[name] if name in own else pretrained[name]
            module = model.get_submodule(parent)
            setattr(module, leaf, nn.Parameter(value.to(self.device), requires_grad=False))

    def logits(self, task: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The output of `task` for one batch of model inputs, fp32 on the CPU."""
        with self._lock, self._applied(task) as model, torch.inference_mode():
            batch = {name: tensor.to(self.device) for name, tensor in inputs.items()}
            return model(**batch).logits.float().cpu()

    @contextmanager
    def _applied(self, name: str) -> Iterator[PreTrainedModel]:
        """The task's model with its mask in the shared weights; it stays until another is asked."""
        if self._active != name:
            self._remove()
            self._active = name
            try:
                self._apply(name)
            except BaseException:
                self._remove()
                raise
        yield self.tasks[name].model

    def _apply(self, name: str) -> None:
        task = self.tasks[name]
        parameters = dict(self.base.named_parameters())
        for parameter, tensor in task.own.items():
            self._plain[parameter] = parameters[parameter].data
            parameters[parameter].data = tensor.to(self.base.dtype)
        if self.cached:
            self._apply_cached(name, parameters)
            return
        for layer in task.coded:
            weight = parameters[f"{layer}.weight"].data
            index = self._positions(task, layer)
            shape = task.folder.shape(f"{base_prefix(task.model)}.{layer}")
            if shape == tuple(weight.shape):
                flat = weight.view(-1)
            else:  # a position is a group of rows
                flat = weight.view(int(np.prod(shape)), -1)
            task.removed.append((layer, flat, flat.index_select(0, index)))
            flat.index_fill_(0, index, 0)

    def _positions(self, task: ResidentTask, layer: str) -> torch.Tensor:
        """What the mask of `layer` drops, decoded at each use: kept, it would weigh five times
        as much as the mask."""
        name = f"{base_prefix(task.model)}.{layer}"
        return torch.from_numpy(task.folder.dropped(name, task.coded[layer])).to(self.device).long()

    def _apply_cached(self, name: str, parameters: dict[str, nn.Parameter]) -> None:
        task = self.tasks[name]
        weights = self._materialised.pop(name, None)
        if weights is None:
            weights = {}
            prefix = f"{base_prefix(task.model)}."
            for layer, bits in task.coded.items():
                mask = ~self._dropped(task.folder, f"{prefix}{layer}", bits)
                key = f"{layer}.weight"
                kept = torch.from_numpy(mask).to(self.device)
                weights[key] = masked_weight(parameters[key].data, kept)
        self._materialised[name] = weights
        while len(self._materialised) > self.cached:
            self._materialised.popitem(last=False)
        for key, weight in weights.items():
            self._plain[key] = parameters[key].data
            parameters[key].data = weight

    def _remove(self) -> None:
        """Put back what the active task dropped or replaced, bit for bit."""
        if self._active is None:
            return
        task = self.tasks[self._active]
        for layer, flat, values in task.removed:
            flat.index_copy_(0, self._positions(task, layer), values)
        task.removed.clear()
        parameters = dict(self.base.named_parameters())
        for name, tensor in self._plain.items():
            parameters[name].data = tensor
        self._plain.clear()
        self._active = None
