"""The autograd function against plain autograd on an explicit W ⊙ M, and gradcheck in fp64."""

import pytest
import torch
import torch.nn.functional as F

from finetune.masks.binarizers import Rule
from finetune.masks.layer import MaskedLinearFunction, gathered, spread

SHAPES = [(6, 5), (3, 1), (1, 1)]  # a weight, a head of two rows, a matrix per score


@pytest.mark.parametrize("shape", SHAPES)
def test_against_plain_autograd(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(6, 5).double(), torch.randn(6).double()
    scores = torch.randn(shape).double().requires_grad_()
    x = torch.randn(2, 4, 5).double().requires_grad_()
    upstream = torch.randn(2, 4, 6).double()
    out = MaskedLinearFunction.apply(x, scores, weight, bias, Rule(), True)
    found = torch.autograd.grad(out, (x, scores), upstream)

    mask = (scores.detach() > 0.01).double().requires_grad_()
    rows = mask if shape[0] in (1, 6) else mask.repeat_interleave(2, 0)
    plain = F.linear(x, weight * rows, bias)
    expected = torch.autograd.grad(plain, (x, mask), upstream)
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradcheck_of_the_input(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    weight, scores = torch.randn(6, 5).double(), torch.randn(shape).double()
    x = torch.randn(3, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: MaskedLinearFunction.apply(x, scores, weight, None, Rule(), True), (x,)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_gathered_is_the_transpose_of_spread(shape: tuple[int, int]) -> None:
    torch.manual_seed(2)
    weight, mask = torch.randn(6, 5), torch.randn(shape)
    inner = (spread(mask, weight) * weight).sum()
    torch.testing.assert_close(inner, (mask * gathered(weight, torch.Size(shape))).sum())


@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_only_the_asked_for_gradients_are_computed(needs: tuple[bool, bool]) -> None:
    x = torch.randn(2, 5, requires_grad=needs[0])
    scores = torch.randn(6, 5, requires_grad=needs[1])
    MaskedLinearFunction.apply(x, scores, torch.randn(6, 5), None, Rule(), True).sum().backward()
    assert (x.grad is not None, scores.grad is not None) == needs


def test_compiled_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5)

    def loss(x: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        out = MaskedLinearFunction.apply(x, scores, weight, None, Rule(), True)
        return out.tanh().sum()

    results = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(1)
        x, scores = torch.randn(4, 5, requires_grad=True), torch.randn(6, 5, requires_grad=True)
        value = function(x, scores)
        results.append((value.detach(), *torch.autograd.grad(value, (x, scores))))
    torch.testing.assert_close(results[0], results[1])
