"""A linear layer whose frozen weight is multiplied by a learned binary mask (Zhao et al. 2020).

forward:  y = x (W ⊙ M_bin)ᵀ + b, M_bin from the scores by a binarizer
backward: straight-through, dL/dscores = (dL/dW_hat) ⊙ W, summed over what a score governs;
          W and b get no gradient.

A score governs one weight, or all rows of an attention head, or the whole matrix: its tensor is
[out, in], [groups, 1] or [1, 1].
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import nn

from finetune.masks.binarizers import Rule, keep, through


def masked_weight(weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """W ⊙ mask; a mask of groups or of one element is spread over the rows of W [out, in].

    The mask is boolean, or gates from 0 to 1.
    """
    if mask.dtype != torch.bool:
        return weight * spread(mask, weight).to(weight.dtype)
    return torch.where(spread(mask, weight), weight, weight.new_zeros(()))


def spread(mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The mask in a shape that broadcasts to `weight`: [groups, 1] becomes [out, 1]."""
    if mask.shape == weight.shape or mask.shape[0] == 1:
        return mask
    return mask.repeat_interleave(weight.shape[0] // mask.shape[0], dim=0)


def gathered(grad: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The transpose of `spread`: [out, in] summed over what each score of `shape` governs."""
    if grad.shape == shape:
        return grad
    return grad.sum(dim=1).reshape(shape[0], -1).sum(dim=1, keepdim=True)


class MaskedLinearFunction(torch.autograd.Function):
    """x [..., in] → [..., out]. Keeps no second copy of W: the backward masks it again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scores: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        rule: Rule,
        training: bool,
    ) -> torch.Tensor:
        """x (W ⊙ M_bin)ᵀ + b, in the precision of `x`."""
        mask = keep(rule, scores, training)
        ctx.save_for_backward(x, scores, weight, mask if rule.remembers else None)
        ctx.rule = rule
        # Masked in W's precision, then cast: bf16 must see the same mask as fp32.
        effective = masked_weight(weight, mask).to(x.dtype)
        return F.linear(x, effective, bias if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of `x` and `scores`, each only where it is asked for."""
        x, scores, weight, mask = ctx.saved_tensors
        if mask is None:
            mask = keep(ctx.rule, scores, False)
        grad_x = grad_scores = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ masked_weight(weight, mask).to(grad.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = grad.flatten(0, -2).T @ x.flatten(0, -2)
            grad_mask = gathered(grad_weight.to(scores.dtype).mul_(weight), scores.shape)
            grad_scores = through(ctx.rule, scores, grad_mask, mask)
        return grad_x, grad_scores, None, None, None, None


class MaskedLinear(nn.Module, BaseTunerLayer):
    """PEFT's wrapper around one `nn.Linear`.

    Per adapter it has `mask_scores` in fp32, and, if the layer belongs to the task's head, its own
    frozen or trained `mask_weight` and `mask_bias`: the base has none for the head.
    """

    adapter_layer_names = ("mask_scores", "mask_weight", "mask_bias")

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.mask_scores = nn.ParameterDict()
        self.mask_weight = nn.ParameterDict()
        self.mask_bias = nn.ParameterDict()
        self.rules: dict[str, Rule] = {}
        self.frozen_peft_weight_names: dict[str, tuple[str, ...]] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._unmerged: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self._active_adapter: list[str] = []

    def add_mask(
        self,
        adapter_name: str,
        scores: torch.Tensor | None,
        rule: Rule,
        is_head: bool,
        trains_head: bool,
    ) -> None:
        """Give the layer a mask (`scores`), or weights of its own (`is_head`), or both."""
        base = self.base_layer
        self.rules[adapter_name] = rule
        if not trains_head:
            self.frozen_peft_weight_names[adapter_name] = ("mask_weight", "mask_bias")
        if scores is not None:
            self.mask_scores[adapter_name] = nn.Parameter(scores.to(base.weight.device))
        if is_head:
            self.mask_weight[adapter_name] = nn.Parameter(base.weight.detach().clone())
            if base.bias is not None:
                self.mask_bias[adapter_name] = nn.Parameter(base.bias.detach().clone())

    def delete_adapter(self, adapter_name: str) -> None:
        """PEFT's, and the rule with it."""
        self.rules.pop(adapter_name, None)
        super().delete_adapter(adapter_name)

    def own(self, adapter_name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias that `adapter_name` masks: its own ones in the head, else the base's."""
        if adapter_name not in self.mask_weight:
            return self.base_layer.weight, self.base_layer.bias
        return self.mask_weight[adapter_name], self.mask_bias.get(adapter_name)

    def mask(self, adapter_name: str) -> torch.Tensor | None:
        """What the adapter keeps, boolean, as evaluation sees it; None if it masks nothing here."""
        if adapter_name not in self.mask_scores:
            return None
        return keep(self.rules[adapter_name], self.mask_scores[adapter_name].detach(), False)

    def effective(self, adapter_name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias the layer computes with under `adapter_name`, W ⊙ M_bin and b."""
        weight, bias = self.own(adapter_name)
        mask = self.mask(adapter_name)
        return (weight if mask is None else masked_weight(weight, mask)), bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] → [..., out]."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        name = self._active_mask()
        if self.disable_adapters or self.merged or name is None:
            return self.base_layer(x)
        weight, bias = self.own(name)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if name not in self.mask_scores:
            return F.linear(x, weight.to(x.dtype), bias if bias is None else bias.to(x.dtype))
        # As rows: what a Function makes of more dimensions is a view, which no model may change in
        # place, as Longformer does.
        rows = x.reshape(-1, x.shape[-1])
        out = MaskedLinearFunction.apply(
            rows, self.mask_scores[name], weight, bias, self.rules[name], self.training
        )
        return out.reshape(*x.shape[:-1], -1)

    def _active_mask(self) -> str | None:
        active = [name for name in self.active_adapters if name in self.rules]
        if len(active) > 1:
            raise ValueError(f"One mask at a time; active are {', '.join(active)}.")
        return active[0] if active else None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write W ⊙ M_bin into the base layer; nothing for `safe_merge` to check: no arithmetic."""
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.rules:
                continue
            if self.merged:
                raise ValueError(f"{self.merged_adapters[0]} is merged already; unmerge it first.")
            base = self.base_layer
            weight, bias = self.effective(name)
            self._unmerged = (base.weight.data, None if base.bias is None else base.bias.data)
            base.weight.data = weight.detach().clone().to(base.weight.dtype)
            if bias is not None:
                base.bias.data = bias.detach().clone().to(base.bias.dtype)
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Put the base layer's weights back, bit for bit."""
        if self._unmerged is None:
            return
        self.base_layer.weight.data, bias = self._unmerged
        if bias is not None:
            self.base_layer.bias.data = bias
        self._unmerged = None
        self.merged_adapters.clear()

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        # PEFT's version casts to the base's dtype; scores stay in fp32: a step may be
        # less than bf16 can tell.
        device = device or self.base_layer.weight.device
        for values in (self.mask_scores, self.mask_weight, self.mask_bias):
            if adapter_name in values:
                values[adapter_name].data = values[adapter_name].data.to(device)
