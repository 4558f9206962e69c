"""Cross-entropy of a linear head, summed, without ever holding all of its logits.

The vocabulary is the widest thing in the model: at B * s = 16,384 predicted positions and 50,265
tokens the logits alone are 3.3 GB in fp32. Here the rows go through the head in chunks, and each
chunk's gradient is computed while its logits exist, so nothing is kept and nothing is computed
twice: the backward pass only scales.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pretrain.masking import IGNORE

# Each chunk reads and writes the [V, h] sum once, which should cost little beside the products: on
# CPUs 300 rows do, where a byte moves in the time of 150 FLOPs it takes ten times as many.
MAX_CHUNK_LOGITS = {"cpu": 2**24, "cuda": 2**28}  # 64 MB and 1 GB in fp32


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        needs_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        chunk_logits = MAX_CHUNK_LOGITS["cuda" if hidden.is_cuda else "cpu"]
        rows = max(1, chunk_logits // weight.shape[0])
        # Sums over chunks are kept in fp32; a single chunk needs no sum, and no second copy.
        sums_in = torch.float32 if hidden.shape[0] > rows else weight.dtype
        loss_sum = hidden.new_zeros((), dtype=torch.float32)
        correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        grads_hidden: list[Tensor] = []
        grad_weight = grad_bias = None
        for start in range(0, hidden.shape[0], rows):
            chunk, label = hidden[start : start + rows], labels[start : start + rows, None]
            ignored = label == IGNORE
            target = label.masked_fill(ignored, 0)  # any index will do: nothing of it counts
            logits = torch.addmm(bias, chunk, weight.t()).float()
            largest = logits.amax(dim=1, keepdim=True)
            of_target = logits.gather(1, target) - largest
            # In place, each pass over the logits once: on CPUs they cost as much as the products.
            exponentials = logits.sub_(largest).exp_()
            total = exponentials.sum(dim=1, keepdim=True)
            loss_sum += (total.log() - of_target).masked_fill(ignored, 0).sum()
            correct += ((of_target == 0) & ~ignored).sum()
            if needs_gradient:
                grad_logits = exponentials.mul_((1 / total).masked_fill(ignored, 0))
                grad_logits.scatter_add_(1, target, ignored.to(logits.dtype) - 1)
                to_bias = grad_logits.sum(dim=0)
                grad_logits = grad_logits.to(chunk.dtype)
                grads_hidden.append(grad_logits @ weight)
                to_weight = (grad_logits.t() @ chunk).to(sums_in)
                grad_weight = to_weight if grad_weight is None else grad_weight + to_weight
                grad_bias = to_bias if grad_bias is None else grad_bias + to_bias
        if grad_weight is not None and grad_bias is not None:
            ctx.save_for_backward(
                torch.cat(grads_hidden), grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)
            )
        ctx.mark_non_differentiable(correct)
        return loss_sum, correct

    @staticmethod
    def backward(
        ctx: Any, grad_loss: Tensor, _grad_correct: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        # An fp32 number times a bf16 matrix is bf16: rounded once, not the number before that.
        return grad_hidden * grad_loss, grad_weight * grad_loss, grad_bias * grad_loss, None, None


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum over rows of the cross-entropy of `hidden @ weight.T + bias` against `labels`.

    Rows whose label is IGNORE count neither in the results nor in any gradient.

    Args:
        hidden: [N, h] states at the predicted positions.
        weight: [V, h] output embedding.
        bias: [V].
        labels: [N] int64 token ids, or IGNORE.

    Returns:
        The summed loss in nats (fp32 scalar, differentiable) and the number of rows whose largest
        logit is the label (int64 scalar).
    """
    # Asked here: inside a Function's forward, gradients are always off.
    return _LinearCrossEntropy.apply(hidden, weight, bias, labels, torch.is_grad_enabled())
