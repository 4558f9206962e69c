"""From scores to bits and back: the five binarizers, and the scores they start from.

Every binarizer maps scores of any shape to a boolean mask, True where a weight is kept. The first
four pass the mask's gradient straight through to the scores:

    threshold      M > τ
    hardtanh       M > 0; the gradient passes only where |M| < 1
    bernoulli      in training a fresh draw at probability sigmoid(M), else M > 0
    topk           all but the `initial_sparsity` · N lowest of each matrix, exactly: edge-popup
                   (Ramanujan et al. 2020) with signed scores, as in movement pruning (Sanh et al.)
    hard_concrete  in training a gate from 0 to 1 (Louizos et al. 2018), whose gradient is exact:
                   clip((ζ - γ) sigmoid((logit(u) + M) / β) + γ, 0, 1) with a fresh u; else M > 0
"""

import math
from typing import NamedTuple

import torch

# Scores are logits of being kept.
LOGITS = ("bernoulli", "hard_concrete")
# The hard concrete's temperature β, and the interval from γ to ζ that is clipped; its authors'.
TEMPERATURE, LOWEST, HIGHEST = 2 / 3, -0.1, 1.1


class Rule(NamedTuple):
    """What turns one layer's scores into its mask.

    `target` and `push` are the sparsity target and how strongly it is pursued (`with_target`).
    """

    binarizer: str = "threshold"
    threshold: float = 0.01
    sparsity: float = 0.05
    target: float | None = None
    push: float = 1.0

    @property
    def cut(self) -> float:
        """Scores above it keep their weight, in evaluation."""
        return self.threshold if self.binarizer == "threshold" else 0.0

    @property
    def remembers(self) -> bool:
        """The backward pass needs the forward's mask: it can't, or shouldn't, compute it again."""
        return self.binarizer in ("bernoulli", "topk", "hard_concrete")


def keep(rule: Rule, scores: torch.Tensor, training: bool) -> torch.Tensor:
    """Boolean mask in the shape of `scores`, compared in the scores' own precision; gates of the
    hard concrete in training.
    """
    if rule.binarizer == "topk":
        zeros = round(rule.sparsity * scores.numel())
        lowest = scores.flatten().topk(zeros, largest=False).indices
        mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
        return mask.index_fill_(0, lowest, False).reshape(scores.shape)
    if rule.binarizer == "bernoulli" and training:
        return torch.rand_like(scores) < scores.sigmoid()
    if rule.binarizer == "hard_concrete" and training:
        noise = torch.rand_like(scores).logit(eps=1e-6)
        concrete = ((noise + scores) / TEMPERATURE).sigmoid()
        return (concrete * (HIGHEST - LOWEST) + LOWEST).clamp(0, 1)
    return scores > rule.cut


def through(
    rule: Rule, scores: torch.Tensor, grad: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The scores' gradient from that of their mask, `grad`, which is overwritten."""
    if rule.target is not None:
        # As if the loss held a penalty on the distance to the target, weighed so that at a distance
        # of 1 / push it is as strong as the task's own gradient: no scale to tune per task.
        distance = rule.target - (1 - mask.float().mean())
        grad += rule.push * distance * grad.pow(2).mean().sqrt()
    if rule.binarizer == "hardtanh":
        grad.mul_(scores.abs() < 1)
    elif rule.binarizer == "hard_concrete":
        # (ζ - γ) s (1 - s) / β, with s the sigmoid, which the gate tells.
        slope = (mask - LOWEST) * (HIGHEST - mask) / ((HIGHEST - LOWEST) * TEMPERATURE)
        grad.mul_(slope * ((mask > 0) & (mask < 1)))
    return grad


def initial_scores(
    rule: Rule, init: str, scale: float, magnitude: torch.Tensor, seed: int
) -> torch.Tensor:
    """Scores in the shape of `magnitude` (what each would remove, |W|), fp32 on the CPU.

    `uniform`: U(-c, (c + τ)/p0 - c), so that a share p0 lies at or below τ; `random` and
    `magnitude`: exactly int(p0 N) of them, chosen at random or smallest first, start as far below
    the cut as the others above it; `ones`: all above. Where scores are logits the uniform start is
    the constant whose probability is 1 - p0.
    """
    generator = torch.Generator().manual_seed(seed)
    margin = rule.threshold if rule.binarizer == "threshold" else scale
    if rule.binarizer in LOGITS:
        margin = math.log((1 - rule.sparsity) / rule.sparsity)
    kept = torch.full(magnitude.shape, rule.cut + margin)
    if init == "ones" or (init == "uniform" and rule.binarizer in LOGITS):
        return kept
    if init == "uniform":
        upper = (scale + rule.cut) / rule.sparsity - scale
        return kept.uniform_(-scale, upper, generator=generator)
    count = int(rule.sparsity * kept.numel())
    if init == "magnitude":
        dropped = magnitude.cpu().float().flatten().topk(count, largest=False).indices
    else:
        dropped = torch.randperm(kept.numel(), generator=generator)[:count]
    kept.view(-1)[dropped] = rule.cut - margin
    return kept
