"""The chunked cross-entropy against torch's own over all logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain import loss as loss_module
from pretrain.loss import linear_cross_entropy
from pretrain.masking import IGNORE


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 50), st.integers(1, 400), st.integers(0, 99))
def test_value_and_gradients_equal_torch(n: int, vocab: int, chunk: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((n, 8), (vocab, 8), (vocab,))
    )
    labels = torch.randint(vocab, (n,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loss_module.MAX_CHUNK_LOGITS, "cpu", chunk)
        value, correct = linear_cross_entropy(hidden, weight, bias, labels)
        grads = torch.autograd.grad(0.37 * value, (hidden, weight, bias))
    logits = hidden @ weight.t() + bias
    expected = F.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(value.double(), expected, atol=1e-4, rtol=1e-5)
    assert correct == (logits.argmax(1) == labels).sum()
    for ours, theirs in zip(
        grads, torch.autograd.grad(0.37 * expected, (hidden, weight, bias)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk_logits", [7 * 50, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share_ignored", [0.0, 0.3, 1.0])
def test_ignored_rows_count_nothing(
    monkeypatch: pytest.MonkeyPatch, chunk_logits: int, dtype: torch.dtype, share_ignored: float
) -> None:
    """Against torch's `ignore_index` on fp32 logits of the same rounded inputs."""
    monkeypatch.setitem(loss_module.MAX_CHUNK_LOGITS, "cpu", chunk_logits)
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(*shape, generator=generator).to(dtype).requires_grad_()
        for shape in ((40, 8), (50, 8), (50,))
    ]
    labels = torch.randint(50, (40,), generator=generator)
    labels[torch.rand(40, generator=generator) < share_ignored] = IGNORE
    value, correct = linear_cross_entropy(*inputs, labels)
    grads = torch.autograd.grad(0.37 * value, inputs)

    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    logits = exact[0] @ exact[1].t() + exact[2]
    expected = F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE)
    expected_grads = torch.autograd.grad(0.37 * expected, exact)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(value, expected, atol=tolerance, rtol=tolerance)
    assert correct == (linear_argmax(inputs) == labels).sum()
    for ours, theirs in zip(grads, expected_grads, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(
            ours.float(), theirs, atol=tolerance * max(scale, 1e-6), rtol=tolerance
        )
    assert (grads[0][labels == IGNORE] == 0).all()


def linear_argmax(inputs: list[torch.Tensor]) -> torch.Tensor:
    hidden, weight, bias = inputs
    return torch.addmm(bias, hidden, weight.t()).argmax(dim=1)


@pytest.mark.parametrize("chunk_logits", [7 * 50, 10**6])
def test_what_ignored_rows_hold_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, chunk_logits: int
) -> None:
    monkeypatch.setitem(loss_module.MAX_CHUNK_LOGITS, "cpu", chunk_logits)
    generator = torch.Generator().manual_seed(1)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((40, 8), (50, 8), (50,))
    )
    labels = torch.randint(50, (40,), generator=generator)
    ignored = torch.rand(40, generator=generator) < 0.4
    labels[ignored] = IGNORE
    results = []
    for scale in (1.0, 3.0):
        inputs = [torch.where(ignored[:, None], scale * hidden, hidden), weight, bias]
        inputs = [tensor.clone().requires_grad_() for tensor in inputs]
        value, correct = linear_cross_entropy(*inputs, labels)
        results.append([value, correct, *torch.autograd.grad(value, inputs)])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = torch.addmm

    def spy(*args: torch.Tensor) -> torch.Tensor:
        out = original(*args)
        sizes.append(out.numel())
        return out

    monkeypatch.setattr(torch, "addmm", spy)
    monkeypatch.setitem(loss_module.MAX_CHUNK_LOGITS, "cpu", 1000)
    hidden = torch.randn(500, 8, requires_grad=True)
    value, _ = linear_cross_entropy(
        hidden, torch.randn(100, 8), torch.zeros(100), torch.zeros(500, dtype=torch.long)
    )
    value.backward()
    assert len(sizes) == 50
    assert max(sizes) <= 1000


def test_the_factor_of_the_loss_is_not_rounded_to_bf16() -> None:
    """0.37 in bf16 is 0.3711: every gradient would be 0.3 % too large."""
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(*shape, generator=generator).bfloat16().requires_grad_()
        for shape in ((400, 64), (50, 64), (50,))
    ]
    labels = torch.randint(50, (400,), generator=generator)
    value, _ = linear_cross_entropy(*inputs, labels)
    whole = torch.autograd.grad(value, inputs, retain_graph=True)
    scaled = torch.autograd.grad(0.37 * value, inputs)
    for part, all_of_it in zip(scaled, whole, strict=True):
        ratio = (part.double() * all_of_it.double()).sum() / all_of_it.double().square().sum()
        assert ratio == pytest.approx(0.37, rel=2e-4)
