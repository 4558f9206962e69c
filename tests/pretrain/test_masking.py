"""Corruption: fixed counts, a partition of the row, noise that depends on the row alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.config import MaskingConfig, PretrainError
from pretrain.masking import MaskedRows, mask_counts, mask_rows

VOCAB = 500


def rows_of(count: int, seq_len: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(4, VOCAB - 1, size=(count, seq_len))
    rows[:, 0] = 0
    rows[:, -1] = 2
    return rows.astype(np.uint16)


def mask(
    rows: np.ndarray, masking: MaskingConfig, ids: object = None, seed: int = 0, epoch: int = 0
) -> MaskedRows:
    ids = np.arange(len(rows)) if ids is None else np.asarray(ids)
    return mask_rows(rows, ids, masking=masking, vocab_size=VOCAB, seed=seed, epoch=epoch)


@pytest.mark.parametrize(
    ("seq_len", "expected"), [(128, (78, 63, 50, 6)), (512, (308, 255, 204, 26))]
)
def test_counts_of_the_methods_reference(seq_len: int, expected: tuple[int, ...]) -> None:
    counts = mask_counts(MaskingConfig(rate=0.5), seq_len)
    assert (counts.visible, counts.predicted, counts.holes, counts.random) == expected


@settings(max_examples=60, deadline=None)
@given(
    seq_len=st.integers(8, 64),
    rate=st.floats(0.1, 0.9),
    masked=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_rows_are_partitioned_and_labels_are_the_originals(
    seq_len: int, rate: float, masked: float, seed: int
) -> None:
    masking = MaskingConfig(rate=rate, masked_share=masked, random_share=(1 - masked) / 2)
    counts = mask_counts(masking, seq_len)
    rows = rows_of(7, seq_len, seed)
    out = mask(rows, masking, seed=seed)
    assert out.input_ids.shape == (7, counts.visible)
    assert out.labels.shape == (7, counts.predicted)
    np.testing.assert_array_equal(np.sort(out.position_ids, axis=1)[0], np.arange(seq_len))
    predicted = out.position_ids[:, -counts.predicted :]
    np.testing.assert_array_equal(np.take_along_axis(rows, predicted, axis=1), out.labels)
    assert not np.isin(predicted, [0, seq_len - 1]).any()  # <s> and </s> are never predicted
    visible = np.take_along_axis(rows, out.position_ids[:, : counts.visible], axis=1)
    changed = visible != out.input_ids
    plain = seq_len - counts.predicted
    assert not changed[:, :plain].any()
    assert not changed[:, plain + counts.random :].any()
    assert (out.input_ids[changed] >= 4).all()
    assert (out.input_ids[changed] < VOCAB - 1).all()


def test_document_borders_are_never_predicted() -> None:
    rows = rows_of(50, 64, 0)
    rows[:, 10], rows[:, 40] = 2, 2
    out = mask(rows, MaskingConfig(rate=0.9))
    assert (out.labels >= 4).all()


def test_noise_depends_on_seed_epoch_and_row_alone() -> None:
    rows, masking = rows_of(6, 32, 0), MaskingConfig(rate=0.5)
    whole = mask(rows, masking)
    part = mask(rows[[4, 1]], masking, ids=[4, 1])
    for all_rows, some in zip(whole, part, strict=True):
        np.testing.assert_array_equal(all_rows[[4, 1]], some)
    assert (mask(rows, masking, epoch=1).position_ids != whole.position_ids).any(axis=1).all()
    assert (mask(rows, masking, seed=1).position_ids != whole.position_ids).any(axis=1).all()


def test_selection_and_replacement_are_uniform() -> None:
    """Over 100,000 tokens: positions equally often, replacements all over the vocabulary."""
    rows = rows_of(2000, 52, 0)
    masking = MaskingConfig(rate=0.5, masked_share=0.5, random_share=0.5)
    out = mask(rows, masking)
    counts = np.bincount(out.position_ids[:, -25:].ravel(), minlength=52)
    assert counts[[0, 51]].tolist() == [0, 0]
    # Binomial(2000, 1/2): standard deviation 22.4; five of them.
    assert np.abs(counts[1:51] - 1000).max() < 112
    m = mask_counts(masking, 52)
    start = 52 - m.predicted
    drawn = np.bincount(out.input_ids[:, start : start + m.random].ravel(), minlength=VOCAB)
    expected = drawn.sum() / (VOCAB - 5)
    assert drawn[:4].sum() == drawn[VOCAB - 1] == 0
    chi2 = ((drawn[4 : VOCAB - 1] - expected) ** 2 / expected).sum()
    assert abs(chi2 - (VOCAB - 6)) < 5 * (2 * (VOCAB - 6)) ** 0.5


def test_neighbouring_positions_are_selected_independently() -> None:
    out = mask(rows_of(4000, 34, 1), MaskingConfig(rate=0.5))
    selected = np.zeros((4000, 34))
    np.put_along_axis(selected, out.position_ids[:, -16:], 1, axis=1)
    inner = selected[:, 1:33]
    correlation = np.corrcoef(inner[:, :-1].ravel(), inner[:, 1:].ravel())[0, 1]
    # Without replacement the correlation is -1 / 31; 3 / sqrt(124,000) of noise.
    assert abs(correlation + 1 / 31) < 0.012


def test_a_rate_that_predicts_nothing_is_refused() -> None:
    with pytest.raises(PretrainError, match=r"masking\.rate"):
        mask_counts(MaskingConfig(rate=0.01), 16)
