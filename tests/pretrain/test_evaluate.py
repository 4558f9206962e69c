"""The frozen validation set is the same for every number of ranks and every micro-batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.errors import PretrainError
from pretrain.evaluate import (
    SEED,
    evaluate,
    evaluation_batches,
    evaluation_masking,
    unigram_loss,
)
from pretrain.masking import IGNORE, MaskedBatch, mask_sequences
from pretrain.model import LateMaskModel
from tests.pretrain.small_model import VOCAB, VOCABULARY, make_model, make_rows, tensors

MASKING = {"insert_layer": 2, "late_layers": 1}


def split_of(count: int) -> Any:
    """Sequences of which every third has fewer ordinary tokens than are selected."""
    sequences = make_rows(count)
    sequences[::3, 2:] = 2
    return sequences


def batches_of(valid: Any, **layout: int) -> list[MaskedBatch]:
    masking = evaluation_masking(make_model(**MASKING).masking)
    return list(evaluation_batches(valid, masking, VOCABULARY, **layout))


def frozen_set(valid: Any, count: int) -> MaskedBatch:
    masking = evaluation_masking(make_model(**MASKING).masking)
    sequence_ids = np.arange(count)
    return mask_sequences(
        valid[:count], sequence_ids, masking=masking, vocabulary=VOCABULARY, seed=SEED, epoch=0
    )


@settings(max_examples=100, deadline=None)
@given(
    num_valid=st.integers(1, 30),
    sequences=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    num_ranks=st.integers(1, 9),
)
def test_every_layout_evaluates_the_same_sequences_once(
    num_valid: int, sequences: int, batch_size: int, num_ranks: int
) -> None:
    valid = split_of(num_valid)
    expected = frozen_set(valid, min(sequences, num_valid))
    ranks = [
        batches_of(
            valid, batch_size=batch_size, sequences=sequences, rank=rank, num_ranks=num_ranks
        )
        for rank in range(num_ranks)
    ]
    num_batches = -(-min(sequences, num_valid) // batch_size)
    assert {len(batches) for batches in ranks} == {-(-num_batches // num_ranks)}
    found = []
    for index in range(len(ranks[0]) * num_ranks):  # batch i is on rank i modulo num_ranks
        batch = ranks[index % num_ranks][index // num_ranks]
        assert [a.shape for a in batch] == [(batch_size, *a.shape[1:]) for a in expected]
        found.append(batch)
    together = [np.concatenate(arrays) for arrays in zip(*found, strict=True)]
    count = len(expected.labels)
    for ours, theirs in zip(together, expected, strict=True):
        np.testing.assert_array_equal(ours[:count], theirs)
    # What fills up the last batches repeats sequence 0, without labels.
    for ours, theirs in zip(together[:2], expected[:2], strict=True):
        assert (ours[count:] == theirs[0]).all()
    assert (together[2][count:] == IGNORE).all()
    assert sum(batch.num_predicted for batch in found) == expected.num_predicted


@pytest.fixture(scope="module")
def model() -> LateMaskModel:
    return make_model(**MASKING)


@pytest.mark.parametrize(
    ("batch_size", "num_ranks"), [(23, 1), (32, 1), (4, 1), (5, 2), (4, 3), (2, 8), (32, 4), (1, 5)]
)
def test_the_loss_is_the_same_for_every_layout(
    model: LateMaskModel, batch_size: int, num_ranks: int
) -> None:
    valid = split_of(23)
    frozen = frozen_set(valid, 23)
    input_ids, position_ids, labels = tensors(frozen)
    with torch.no_grad():
        logits = model.logits(input_ids, position_ids, labels.shape[1]).flatten(0, 1)
    expected = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)
    accuracy = (logits.argmax(1) == labels.flatten()).sum() / frozen.num_predicted
    everything = [
        batch
        for rank in range(num_ranks)
        for batch in batches_of(
            valid, batch_size=batch_size, sequences=23, rank=rank, num_ranks=num_ranks
        )
    ]
    loss, correct = evaluate(model, everything)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert correct == pytest.approx(accuracy.item(), rel=1e-6)


def test_the_unigram_loss_counts_each_label_once() -> None:
    valid = split_of(23)
    log_frequencies = np.log(np.random.default_rng(0).dirichlet(np.ones(VOCAB))).astype(np.float32)
    labels = frozen_set(valid, 23).labels
    expected = -log_frequencies[labels[labels != IGNORE]].astype(np.float64).mean()
    for batch_size, num_ranks in [(23, 1), (4, 1), (5, 2), (2, 8)]:
        batches = [
            batch
            for rank in range(num_ranks)
            for batch in batches_of(
                valid, batch_size=batch_size, sequences=30, rank=rank, num_ranks=num_ranks
            )
        ]
        assert unigram_loss(batches, log_frequencies) == pytest.approx(expected, rel=1e-9)


def test_no_sequences_are_an_error() -> None:
    with pytest.raises(PretrainError, match="no validation sequence"):
        batches_of(split_of(3), batch_size=2, sequences=0)
