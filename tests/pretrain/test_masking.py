"""Masking: fixed counts, no special token predicted, noise that depends on the sequence alone."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pretrain.errors import PretrainError
from pretrain.masking import IGNORE, MaskCounts, MaskedBatch, mask_counts, mask_sequences
from pretrain.recipe import MaskingConfig
from pretrain.vocabulary import Vocabulary

VOCAB = 500
SPECIAL = [0, 1, 2, 3, VOCAB - 1]
WORD_STARTS = np.arange(VOCAB) % 3 == 0


def sequences_of(count: int, seq_len: int, seed: int) -> np.ndarray:
    sequences = np.random.default_rng(seed).integers(4, VOCAB - 1, size=(count, seq_len))
    sequences[:, 0] = 0
    sequences[:, -1] = 2
    return sequences.astype(np.uint16)


def mask(
    sequences: np.ndarray, masking: MaskingConfig, ids: object = None, seed: int = 0, epoch: int = 0
) -> MaskedBatch:
    ids = np.arange(len(sequences)) if ids is None else np.asarray(ids)
    return mask_sequences(
        sequences,
        ids,
        masking=masking,
        vocabulary=Vocabulary.robertas(VOCAB),
        seed=seed,
        epoch=epoch,
        word_starts=WORD_STARTS,
    )


@pytest.mark.parametrize(
    ("seq_len", "expected"), [(128, (78, 63, 50, 6)), (512, (308, 255, 204, 26))]
)
def test_counts_of_the_methods_reference(seq_len: int, expected: tuple[int, ...]) -> None:
    counts = mask_counts(MaskingConfig(rate=0.5), seq_len)
    assert (counts.visible, counts.predicted, counts.masked, counts.random) == expected


@settings(max_examples=100, deadline=None)
@given(
    seq_len=st.integers(16, 64),
    rate=st.floats(0.15, 0.85),
    loss_fraction=st.floats(0.5, 1),
    masked=st.floats(0, 1),
    select=st.sampled_from(["token", "whole_word", "span"]),
    seed=st.integers(0, 10**6),
)
def test_sequences_are_partitioned_and_labels_are_the_originals(
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
    assert counts.visible + counts.masked + counts.dropped == seq_len
    sequences = sequences_of(7, seq_len, seed)
    out = mask(sequences, masking, seed=seed)
    assert out.input_ids.shape == (7, counts.visible)
    assert out.labels.shape == (7, counts.predicted)
    assert out.position_ids.shape == (7, counts.positions)
    assert all(len(set(row)) == counts.positions for row in out.position_ids.tolist())
    predicted = out.position_ids[:, -counts.predicted :]
    np.testing.assert_array_equal(np.take_along_axis(sequences, predicted, axis=1), out.labels)
    assert not np.isin(predicted, [0, seq_len - 1]).any()  # <s> and </s> are never predicted
    assert {0, seq_len - 1} <= set(out.position_ids[0].tolist())  # nor dropped
    visible = np.take_along_axis(sequences, out.position_ids[:, : counts.visible], axis=1)
    changed = visible != out.input_ids
    plain = counts.positions - counts.predicted
    assert not changed[:, :plain].any()
    assert not changed[:, plain + counts.random :].any()
    assert (out.input_ids[changed] >= 4).all()
    assert (out.input_ids[changed] < VOCAB - 1).all()


def units_selected(sequences: np.ndarray, starts: np.ndarray, masking: MaskingConfig) -> np.ndarray:
    """[B] how many of a sequence's units are selected in part; brute force over tokens."""
    out = mask(sequences, masking)
    partial = []
    for sequence, begins, predicted in zip(
        sequences, starts, out.position_ids[:, -out.labels.shape[1] :], strict=True
    ):
        units: list[list[bool]] = []
        for position, token in enumerate(sequence):
            if begins[position] or token in (0, 2) or sequence[position - 1] in (0, 2):
                units.append([])
            units[-1].append(position in predicted)
        partial.append(sum(0 < sum(unit) < len(unit) for unit in units))
    return np.array(partial)


def test_whole_words_are_selected_whole_but_the_last() -> None:
    sequences = sequences_of(200, 64, 3)
    sequences[:, 30] = 2
    masking = MaskingConfig(rate=0.4, masked_share=1.0, random_share=0.0, select="whole_word")
    partial = units_selected(sequences, WORD_STARTS[sequences], masking)
    assert partial.max() == 1
    tokens = MaskingConfig(rate=0.4, masked_share=1.0, random_share=0.0)
    assert units_selected(sequences, WORD_STARTS[sequences], tokens).mean() > 3


def test_spans_are_as_long_as_asked_for() -> None:
    """Stretches of selected tokens: mean length l of geometric spans, joined where two touch."""
    sequences = sequences_of(1000, 514, 0)
    for length in (1.0, 3.0, 6.0):
        masking = MaskingConfig(
            rate=0.1, masked_share=1.0, random_share=0.0, select="span", span_length=length
        )
        out = mask(sequences, masking)
        selected = np.zeros((1000, 514))
        np.put_along_axis(selected, out.position_ids[:, -51:], 1, axis=1)
        stretches = (np.diff(selected, axis=1) == 1).sum()
        # About one span in ten touches the next; the last of about 51 / l spans is cut.
        assert selected.sum() / stretches == pytest.approx(1.1 * length, rel=0.15)


@st.composite
def maskings(draw: st.DrawFn) -> MaskingConfig:
    masked = draw(st.floats(0, 1))
    return MaskingConfig(
        rate=draw(st.floats(0.05, 0.95)),
        loss_fraction=draw(st.floats(0.1, 1)),
        masked_share=masked,
        random_share=(1 - masked) * draw(st.floats(0, 1)),
        select=draw(st.sampled_from(["token", "whole_word", "span"])),
        span_length=draw(st.floats(1, 8)),
    )


def sequences_with_specials(seq_len: int, num_special: list[int], seed: int) -> np.ndarray:
    """One sequence for each entry of `num_special`, with so many inner special tokens."""
    rng = np.random.default_rng(seed)
    sequences = sequences_of(len(num_special), seq_len, seed)
    for sequence, count in zip(sequences, num_special, strict=True):
        positions = 1 + rng.permutation(seq_len - 2)[:count]
        sequence[positions] = rng.choice(SPECIAL, size=count)
    return sequences


@settings(max_examples=300, deadline=None)
@given(masking=maskings(), data=st.data(), seq_len=st.integers(5, 48), seed=st.integers(0, 999))
def test_special_tokens_are_never_predicted(
    masking: MaskingConfig, data: st.DataObject, seq_len: int, seed: int
) -> None:
    try:
        counts = mask_counts(masking, seq_len)
    except PretrainError:
        assume(False)
    num_special = data.draw(st.lists(st.integers(0, seq_len - 2), min_size=1, max_size=5))
    sequences = sequences_with_specials(seq_len, num_special, seed)
    out = mask(sequences, masking, seed=seed)
    assert out.input_ids.shape == (len(sequences), counts.visible)
    assert out.position_ids.shape == (len(sequences), counts.positions)
    assert out.labels.shape == (len(sequences), counts.predicted)
    for sequence, *arrays in zip(sequences.astype(int), *out, strict=True):
        check_masked(sequence, MaskedBatch(*arrays), counts)
    assert out.num_predicted == sum(
        min(counts.predicted, seq_len - 2 - count) for count in num_special
    )


def check_masked(sequence: np.ndarray, out: MaskedBatch, counts: MaskCounts) -> None:
    """What holds for each sequence, whatever special tokens it has."""
    is_special = np.isin(sequence, SPECIAL)
    num_ordinary = (~is_special).sum()
    assert len(set(out.position_ids.tolist())) == counts.positions
    predicted = out.position_ids[-counts.predicted :]
    expected = np.where(is_special[predicted], IGNORE, sequence[predicted])
    np.testing.assert_array_equal(out.labels, expected)
    assert (out.labels != IGNORE).sum() == min(counts.predicted, num_ordinary)

    visible = out.position_ids[: counts.visible]
    unselected = counts.positions - counts.predicted
    random = slice(unselected, unselected + counts.random)
    may_change = np.zeros(counts.visible, dtype=bool)
    may_change[random] = ~is_special[visible[random]]
    changed = out.input_ids != sequence[visible]
    assert not changed[~may_change].any()
    assert not np.isin(out.input_ids[changed], SPECIAL).any()

    hidden = np.setdiff1d(np.arange(len(sequence)), visible)
    hidden_specials = hidden[is_special[hidden]]
    assert not np.isin([0, len(sequence) - 1], hidden).any()
    if len(hidden_specials):
        assert num_ordinary < counts.predicted + counts.dropped
    if counts.dropped == 0:  # then only where they outnumber the visible positions
        assert len(hidden_specials) == max(0, is_special.sum() - counts.visible)


def test_the_frame_gives_way_last() -> None:
    """A sequence of special tokens alone: inner ones fill the selected positions, from the left."""
    sequence = np.full((1, 16), 2, dtype=np.uint16)
    sequence[0, 0] = 0
    masking = MaskingConfig(rate=0.85, masked_share=0.5, random_share=0.25)
    out = mask(sequence, masking)
    counts = mask_counts(masking, 16)
    assert counts.visible - (counts.predicted - counts.masked) == 4
    np.testing.assert_array_equal(out.position_ids[0, :4], [0, 13, 14, 15])
    np.testing.assert_array_equal(out.input_ids[0], [0] + [2] * (counts.visible - 1))
    assert (out.labels == IGNORE).all()
    assert out.num_predicted == 0


SHARES: dict[str, dict[str, Any]] = {
    "half": {"rate": 0.5},
    "masks": {"rate": 0.15, "masked_share": 1.0, "random_share": 0.0},
    "dropped": {"rate": 0.8, "loss_fraction": 0.6, "masked_share": 0.3, "random_share": 0.5},
}
RECORDED = {
    ("token", "half"): "2f33f1c8984c0b7f",
    ("token", "masks"): "62f7cd8fa2705b87",
    ("token", "dropped"): "b7ebd67cd33f5aab",
    ("whole_word", "half"): "0a36e19f3cd0945a",
    ("whole_word", "masks"): "b3c4625141427f9f",
    ("whole_word", "dropped"): "62e16a14460087b4",
    ("span", "half"): "39900615d3ba1f6f",
    ("span", "masks"): "c38d4f8485cefeea",
    ("span", "dropped"): "a79dced866a00001",
}


@pytest.mark.parametrize(("select", "shares"), RECORDED)
def test_sequences_without_inner_special_tokens_are_masked_as_ever(
    select: Any, shares: str
) -> None:
    """Hashes recorded before special tokens could be surplus: old runs must resume unchanged."""
    masking = MaskingConfig(select=select, **SHARES[shares])
    digest = hashlib.sha256()
    for seq_len in (24, 128):
        sequences = 4 + np.arange(9 * seq_len).reshape(9, seq_len) * 7919 % (VOCAB - 5)
        sequences[:, 0], sequences[:, -1] = 0, 2
        for array in mask(sequences, masking, ids=np.arange(9) * 1000, seed=7, epoch=3):
            digest.update(array.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == RECORDED[select, shares]


def test_noise_depends_on_seed_epoch_and_sequence_alone() -> None:
    sequences, masking = sequences_of(6, 32, 0), MaskingConfig(rate=0.5)
    whole = mask(sequences, masking)
    part = mask(sequences[[4, 1]], masking, ids=[4, 1])
    for everything, some in zip(whole, part, strict=True):
        np.testing.assert_array_equal(everything[[4, 1]], some)
    assert (mask(sequences, masking, epoch=1).position_ids != whole.position_ids).any(axis=1).all()
    assert (mask(sequences, masking, seed=1).position_ids != whole.position_ids).any(axis=1).all()


def test_selection_and_replacement_are_uniform() -> None:
    """Over 100,000 tokens: positions equally often, replacements all over the vocabulary."""
    sequences = sequences_of(2000, 52, 0)
    masking = MaskingConfig(rate=0.5, masked_share=0.5, random_share=0.5)
    out = mask(sequences, masking)
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
    out = mask(sequences_of(4000, 34, 1), MaskingConfig(rate=0.5))
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
