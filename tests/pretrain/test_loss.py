"""The chunked cross-entropy against torch's own over all logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain import loss as loss_module
from pretrain.loss import linear_cross_entropy


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
