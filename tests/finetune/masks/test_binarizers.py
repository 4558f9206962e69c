"""Binarizers and starting scores against their formulas."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.masks.binarizers import Rule, initial_scores, keep, through
from finetune.masks.layer import MaskedLinearFunction

MAGNITUDE = torch.rand(200, 300, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("binarizer", "scores", "expected"),
    [
        ("threshold", [0.01, 0.0100001, -5.0, 3.0], [0, 1, 0, 1]),
        ("hardtanh", [0.0, 1e-9, -2.0, 7.0], [0, 1, 0, 1]),
        ("bernoulli", [0.0, 1e-9, -2.0, 7.0], [0, 1, 0, 1]),
        ("topk", [0.3, 0.1, 0.1, -4.0], [1, 1, 0, 0]),
        ("hard_concrete", [0.0, 1e-9, -2.0, 7.0], [0, 1, 0, 1]),
    ],
)
def test_what_is_kept_in_evaluation(
    binarizer: str, scores: list[float], expected: list[int]
) -> None:
    mask = keep(Rule(binarizer, sparsity=0.5), torch.tensor(scores), training=False)
    if binarizer == "topk":  # of equal scores either may go; the count is exact
        assert mask.sum() == 2 and mask[0] and not mask[3]
    else:
        assert mask.tolist() == [bool(bit) for bit in expected]


def test_bernoulli_draws_anew_in_training_at_the_sigmoid() -> None:
    rule = Rule("bernoulli")
    scores = torch.full((400, 400), 1.5)
    first, second = keep(rule, scores, True), keep(rule, scores, True)
    share = 1 / (1 + math.exp(-1.5))
    for mask in (first, second):
        assert abs(mask.float().mean() - share) < 4 * (share * (1 - share) / 160_000) ** 0.5
    agree = (first == second).float().mean().item()
    assert agree == pytest.approx(share**2 + (1 - share) ** 2, abs=0.01)


def test_gradients_pass_as_specified() -> None:
    scores = torch.tensor([-3.0, -0.5, 0.2, 1.0, 2.0])
    grad = torch.arange(1.0, 6.0)
    mask = scores > 0
    for binarizer in ("threshold", "bernoulli", "topk"):
        assert through(Rule(binarizer), scores, grad.clone(), mask).equal(grad)
    hard = through(Rule("hardtanh"), scores, grad.clone(), mask)
    assert hard.tolist() == [0, 2, 3, 0, 0]


class GetSubnet(torch.autograd.Function):
    """Edge-popup as its paper has it: the lowest of the sorted scores go; straight through."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, zeros: float) -> torch.Tensor:
        order = scores.flatten().sort().indices
        kept = torch.ones(scores.numel())
        kept[order[: round(zeros * scores.numel())]] = 0
        return kept.reshape(scores.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad, None


@given(st.floats(0, 1), st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_topk_is_edge_popup(zeros: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, scores, x = (torch.randn(7, 5, generator=generator) for _ in range(3))
    found = []
    for binarizer in ("topk", "theirs"):
        leaf = scores.clone().requires_grad_()
        if binarizer == "topk":
            rule = Rule(binarizer, sparsity=zeros)
            out = MaskedLinearFunction.apply(x, leaf, weight, None, rule, True)
        else:
            out = x @ (weight * GetSubnet.apply(leaf, zeros)).T
        out.square().sum().backward()
        found.append((out.detach(), leaf.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_hard_concrete_gates_and_gradients_are_autograds_of_the_formula() -> None:
    weight, x = torch.randn(40, 30, dtype=torch.double), torch.randn(8, 30, dtype=torch.double)
    scores = torch.linspace(-4, 4, 1200, dtype=torch.double).reshape(40, 30)
    found = []
    for ours in (True, False):
        leaf = scores.clone().requires_grad_()
        torch.manual_seed(0)
        if ours:
            rule = Rule("hard_concrete")
            out = MaskedLinearFunction.apply(x, leaf, weight, None, rule, True)
        else:
            u = torch.rand_like(leaf)
            s = torch.sigmoid((u.log() - (1 - u).log() + leaf) / (2 / 3))
            out = x @ (weight * torch.clamp(s * 1.2 - 0.1, 0, 1)).T
        out.square().sum().backward()
        found.append((out.detach(), leaf.grad))
    for ours, formula in zip(*found, strict=True):
        torch.testing.assert_close(ours, formula)


def test_hard_concrete_gates_are_open_as_often_as_its_paper_says() -> None:
    """P(gate > 0) = sigmoid(M - β log(-γ / ζ)), its equation 12."""
    scores = torch.full((500, 500), -1.0)
    gates = keep(Rule("hard_concrete"), scores, training=True)
    share = 1 / (1 + math.exp(1.0 + 2 / 3 * math.log(0.1 / 1.1)))
    assert (gates > 0).float().mean().item() == pytest.approx(share, abs=0.005)
    assert gates.min() == 0 and gates.max() == 1


@pytest.mark.parametrize("binarizer", ["bernoulli", "topk", "hardtanh", "threshold"])
def test_the_backward_uses_the_forwards_mask(binarizer: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5)
    scores = torch.randn(6, 5, requires_grad=True)
    x = torch.eye(5, requires_grad=True)
    out = MaskedLinearFunction.apply(x, scores, weight, None, Rule(binarizer, sparsity=0.3), True)
    effective = out.detach().T  # x is the identity
    out.sum().backward()
    assert torch.equal(x.grad, torch.ones(5, 6) @ effective)
    assert set((effective != 0).unique().tolist()) == {False, True}


@pytest.mark.parametrize("binarizer", ["threshold", "hardtanh", "topk"])
@pytest.mark.parametrize("sparsity", [0.05, 0.3])
@pytest.mark.parametrize("init", ["uniform", "magnitude", "random", "ones"])
def test_initial_sparsity(binarizer: str, init: str, sparsity: float) -> None:
    if (binarizer, init) == ("topk", "ones"):
        return
    rule = Rule(binarizer, sparsity=sparsity)
    scores = initial_scores(rule, init, 0.02, MAGNITUDE, seed=3)
    zeros = ~keep(rule, scores, False)
    count = MAGNITUDE.numel()
    if init == "uniform" and binarizer != "topk":
        sigma = (sparsity * (1 - sparsity) / count) ** 0.5
        assert abs(zeros.float().mean() - sparsity) < 4 * sigma
    else:
        assert zeros.sum() == (0 if init == "ones" else int(sparsity * count))
    if init == "magnitude":
        assert MAGNITUDE[zeros].max() <= MAGNITUDE[~zeros].min()


@pytest.mark.parametrize("binarizer", ["bernoulli", "hard_concrete"])
def test_logits_start_at_the_asked_for_probability(binarizer: str) -> None:
    rule = Rule(binarizer, sparsity=0.05)
    scores = initial_scores(rule, "uniform", 0.02, MAGNITUDE, seed=0)
    assert scores.unique().numel() == 1
    assert scores[0, 0].item() == pytest.approx(2.944, abs=1e-3)  # log(0.95 / 0.05)
    dropped = (keep(rule, scores, True) < 0.5).float().mean().item()
    assert dropped == pytest.approx(0.05, abs=0.005)


def test_a_target_pulls_the_share_of_zeros_to_it() -> None:
    """Plain SGD on a random task gradient; without the push the share stays where it was."""
    shares = {}
    for push in (0.0, 10.0):
        rule = Rule(sparsity=0.05, target=0.3, push=push)
        scores = initial_scores(rule, "uniform", 0.02, MAGNITUDE, seed=1)
        generator = torch.Generator().manual_seed(2)
        for _ in range(400):
            grad = torch.randn(scores.shape, generator=generator)
            scores -= 2e-3 * through(rule, scores, grad, keep(rule, scores, True))
        shares[push] = (~keep(rule, scores, False)).float().mean().item()
    assert shares[10.0] == pytest.approx(0.3, abs=0.02)
    assert shares[0.0] < 0.15
