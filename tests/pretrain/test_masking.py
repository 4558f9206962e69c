"""Corruption: fixed counts, a partition of the row, noise that depends on the row alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.errors import PretrainError
from pretrain.masking import MaskedRows, mask_counts, mask_rows
from pretrain.recipe import MaskingConfig

VOCAB = 500
WORD_STARTS = np.arange(VOCAB) % 3 == 0


def rows_of(count: int, seq_len: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(4, VOCAB - 1, size=(count, seq_len))
    rows[:, 0] = 0
    rows[:, -1] = 2
    return rows.astype(np.uint16)


def mask(
    rows: np.ndarray, masking: MaskingConfig, ids: object = None, seed: int = 0, epoch: int = 0
) -> MaskedRows:
    ids = np.arange(len(rows)) if ids is None else np.asarray(ids)
    return mask_rows(
        rows,
        ids,
        masking=masking,
        vocab_size=VOCAB,
        seed=seed,
        epoch=epoch,
        word_starts=WORD_STARTS,
    )


@pytest.mark.parametrize(
    ("seq_len", "expected"), [(128, (78, 63, 50, 6)), (512, (308, 255, 204, 26))]
)
def test_counts_of_the_methods_reference(seq_len: int, expected: tuple[int, ...]) -> None:
    counts = mask_counts(MaskingConfig(rate=0.5), seq_len)
    assert (counts.visible, counts.predicted, counts.holes, counts.random) == expected


@settings(max_examples=100, deadline=None)
@given(
    seq_len=st.integers(16, 64),
    rate=st.floats(0.15, 0.85),
    loss_fraction=st.floats(0.5, 1),
    masked=st.floats(0, 1),
    select=st.sampled_from(["token", "whole_word", "span"]),
    seed=st.integers(0, 10**6),
)
def test_rows_are_partitioned_and_labels_are_the_originals(
    seq_len: int, rate: float, loss_fraction: float, masked: float, select: str, seed: int
) -> None:
    masking = MaskingConfig(
        rate=rate,
        loss_fraction=loss_fraction,
        masked_share=masked,
        random_share=(1 - masked) / 2,
        select=select,  # type: ignore[arg-type]
    )
    counts = mask_counts(masking, seq_len)
    assert counts.visible + counts.holes + counts.dropped == seq_len
    rows = rows_of(7, seq_len, seed)
    out = mask(rows, masking, seed=seed)
    assert out.input_ids.shape == (7, counts.visible)
    assert out.labels.shape == (7, counts.predicted)
    assert out.position_ids.shape == (7, counts.places)
    assert all(len(set(places)) == counts.places for places in out.position_ids.tolist())
    predicted = out.position_ids[:, -counts.predicted :]
    np.testing.assert_array_equal(np.take_along_axis(rows, predicted, axis=1), out.labels)
    assert not np.isin(predicted, [0, seq_len - 1]).any()  # <s> and </s> are never predicted
    assert {0, seq_len - 1} <= set(out.position_ids[0].tolist())  # nor left out
    visible = np.take_along_axis(rows, out.position_ids[:, : counts.visible], axis=1)
    changed = visible != out.input_ids
    plain = counts.places - counts.predicted
    assert not changed[:, :plain].any()
    assert not changed[:, plain + counts.random :].any()
    assert (out.input_ids[changed] >= 4).all()
    assert (out.input_ids[changed] < VOCAB - 1).all()


def units_selected(rows: np.ndarray, starts: np.ndarray, masking: MaskingConfig) -> np.ndarray:
    """[B] how many of a row's units are selected in part; brute force over tokens."""
    out = mask(rows, masking)
    partial = []
    for row, begins, predicted in zip(
        rows, starts, out.position_ids[:, -out.labels.shape[1] :], strict=True
    ):
        units: list[list[bool]] = []
        for place, token in enumerate(row):
            if begins[place] or token in (0, 2) or row[place - 1] in (0, 2):
                units.append([])
            units[-1].append(place in predicted)
        partial.append(sum(0 < sum(unit) < len(unit) for unit in units))
    return np.array(partial)


def test_whole_words_are_selected_whole_but_the_last() -> None:
    rows = rows_of(200, 64, 3)
    rows[:, 30] = 2
    masking = MaskingConfig(rate=0.4, masked_share=1.0, random_share=0.0, select="whole_word")
    partial = units_selected(rows, WORD_STARTS[rows], masking)
    assert partial.max() == 1
    tokens = MaskingConfig(rate=0.4, masked_share=1.0, random_share=0.0)
    assert units_selected(rows, WORD_STARTS[rows], tokens).mean() > 3


def test_spans_are_as_long_as_asked_for() -> None:
    """Stretches of selected tokens: mean length l of geometric spans, joined where two touch."""
    rows = rows_of(1000, 514, 0)
    for length in (1.0, 3.0, 6.0):
        masking = MaskingConfig(
            rate=0.1, masked_share=1.0, random_share=0.0, select="span", span_length=length
        )
        out = mask(rows, masking)
        selected = np.zeros((1000, 514))
        np.put_along_axis(selected, out.position_ids[:, -51:], 1, axis=1)
        stretches = (np.diff(selected, axis=1) == 1).sum()
        # About one span in ten touches the next; the last of about 51 / l spans is cut.
        assert selected.sum() / stretches == pytest.approx(1.1 * length, rel=0.15)


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


@pytest.mark.parametrize(
    ("rate", "message"), [(0.01, "predicts no token"), (0.99, "leaves no token")]
)
def test_rates_that_leave_nothing_are_refused(rate: float, message: str) -> None:
    with pytest.raises(PretrainError, match=rf"masking\.rate.*{message}"):
        mask_counts(MaskingConfig(rate=rate, masked_share=1.0, random_share=0.0), 16)
