"""Effective rank of known spectra; what is recorded inside a model is what the model computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModel

from pretrain.data import ShardFolder
from pretrain.initialise import initialise
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig, ModelConfig
from reproduce.late_masking.diagnose import (
    SEQUENCES,
    diagnose,
    effective_rank,
    rank_of,
    recorded,
    share_to_masks,
)
from reproduce.late_masking.stages import Options


@pytest.mark.parametrize("spectrum", [[1.0] * 6, [5.0, 0, 0, 0, 0, 0], [4.0, 2, 1, 1, 0.5, 0.25]])
def test_rank_of_a_known_spectrum(spectrum: list[float]) -> None:
    torch.manual_seed(0)
    left = torch.linalg.qr(torch.randn(50, 6).double()).Q
    right = torch.linalg.qr(torch.randn(6, 6).double()).Q
    states = left @ torch.diag(torch.tensor(spectrum).double()) @ right.T
    shares = [value / sum(spectrum) for value in spectrum if value > 0]
    wanted = math.prod(share**-share for share in shares)
    assert effective_rank(states) == pytest.approx(wanted)
    assert effective_rank(7 * states) == pytest.approx(wanted)


def tiny(masking: MaskingConfig) -> LateMaskModel:
    config = ModelConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, initializer_range=None, dropout=0.0, vocab_size=30,
    )  # fmt: skip
    model = LateMaskModel(config, masking)
    initialise(model, seed=0)
    return model.eval()


def test_recording_sees_all_layers_and_changes_nothing() -> None:
    model = tiny(MaskingConfig(insert_layer=1, late_layers=2, late_attention="cross"))
    ids = torch.randint(4, 29, (3, 6))
    positions = torch.arange(10).expand(3, 10)
    with torch.no_grad():
        before = model.predicted_states(ids, positions, 10)
        with recorded(model) as (states, attention):
            during = model.predicted_states(ids, positions, 10)
        after = model.predicted_states(ids, positions, 10)
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert [s.shape[1] for s in states] == [6, 6, 10, 10, 10]
    assert [a.shape[-2:] for a in attention] == [(6, 6), (10, 10), (10, 10), (10, 10)]
    for probabilities in attention:
        assert torch.allclose(probabilities.sum(-1), torch.ones(()))


def test_indifferent_attention_has_share_one() -> None:
    uniform = torch.full((2, 2, 10, 10), 0.1)
    assert share_to_masks(uniform, visible=6) == pytest.approx(1)
    assert share_to_masks(uniform[..., :6, :6], visible=6) == 0
    all_to_masks = torch.zeros(1, 1, 10, 10)
    all_to_masks[..., 6:] = 0.25
    assert share_to_masks(all_to_masks, visible=6) == pytest.approx(10 / 4)


def test_a_run_is_diagnosed(pretrained: Options) -> None:
    vanilla, paper = (run for run in pretrained.runs() if run.seed == 1)
    found = {
        (r["variant"], r["measure"], r["input"], r["layer"]): r["value"]
        for run in (vanilla, paper)
        for r in diagnose(run)
    }
    # k = L: no [MASK] is in the first four layers, two late ones see them.
    for layer in range(1, 5):
        assert found["paper_78", "attention", "with [MASK]s", layer] == 0
        assert found["vanilla_15", "attention", "with [MASK]s", layer] > 0
    assert found["paper_78", "attention", "with [MASK]s", 6] > 0
    assert ("vanilla_15", "gradient", "training", 4) in found
    # The stock class computes the states without [MASK]s as well.
    stock = AutoModel.from_pretrained(paper.model).eval()
    sequences = ShardFolder(pretrained.output_dir / "data").sequences("valid")
    ids = torch.from_numpy(sequences[np.arange(min(SEQUENCES, len(sequences)))])
    with torch.no_grad():
        last = stock(input_ids=ids).last_hidden_state
    assert rank_of(last) == pytest.approx(found["paper_78", "rank", "without", 4], rel=1e-3)
