"""Which tokens are predicted and what stands in their place: a pure function of (seed, epoch, row).

Counts are fixed per row (rates, rounded), so every step has the same shapes: no padding
mask, one compiled graph. A row comes out in the order that `model.py` reads: visible tokens that
nobody predicts, visible tokens that are predicted (replaced or left), then the holes. Tokens that
are selected beyond `loss_fraction` are in none of these: no layer spends anything on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import PretrainError
from pretrain.recipe import MaskingConfig

NUM_LEADING_SPECIALS = 4  # <s> <pad> </s> <unk>; <mask> is the last id


class MaskedRows(NamedTuple):
    """B corrupted rows; T = n + m places, of which the last s are predicted."""

    input_ids: NDArray[np.int64]  # [B, n] visible tokens, random replacements among them
    position_ids: NDArray[np.int64]  # [B, T] 0-based places: of `input_ids`, then of the holes
    labels: NDArray[np.int64]  # [B, s] the originals at the last s places

    @property
    def num_predicted(self) -> int:
        return int((self.labels != -100).sum())


@dataclass(frozen=True)
class MaskCounts:
    """Tokens of one row by what happens to them; `visible + holes + dropped` is the whole row."""

    visible: int  # n
    predicted: int  # s
    holes: int  # m
    random: int
    dropped: int  # selected, but neither shown nor predicted

    @property
    def places(self) -> int:
        """T, the length of the layers that see everything."""
        return self.visible + self.holes


def mask_counts(masking: MaskingConfig, seq_len: int) -> MaskCounts:
    """Fixed counts for rows of `seq_len` tokens that begin with <s> and end with </s>."""
    selected = round(masking.rate * (seq_len - 2))
    predicted = round(masking.loss_fraction * selected)
    holes = round(masking.masked_share * predicted)
    random = min(round(masking.random_share * predicted), predicted - holes)
    dropped = selected - predicted
    if predicted == 0:
        raise PretrainError(
            f"masking.rate = {masking.rate} with masking.loss_fraction = {masking.loss_fraction} "
            f"predicts no token of a row of {seq_len}; raise one of them"
        )
    visible = seq_len - holes - dropped
    if visible == 2:
        raise PretrainError(
            f"masking.rate = {masking.rate} leaves no token of a row of {seq_len} visible; lower it"
        )
    return MaskCounts(visible, predicted, holes, random, dropped)


def mask_rows(
    rows: NDArray[np.integer],
    row_ids: NDArray[np.integer],
    *,
    masking: MaskingConfig,
    vocab_size: int,
    seed: int,
    epoch: int,
    word_starts: NDArray[np.bool_] | None = None,
) -> MaskedRows:
    """Corrupt B rows of `seq_len` tokens.

    Args:
        rows: [B, seq_len] token ids; the first column is <s>, the last </s>.
        row_ids: [B] each row's index in its split: a row's noise depends on it alone, so a batch
            is the same on any number of ranks.
        masking: rates and shares.
        vocab_size: V; random replacements are drawn from all but the special tokens.
        seed: of the run.
        epoch: how often the rows have been seen before.
        word_starts: [V] which pieces begin a word; needed for `select: whole_word`.
    """
    seq_len = rows.shape[1]
    counts = mask_counts(masking, seq_len)
    spans = seq_len if masking.select == "span" else 0
    noise = _noise(seed, epoch, row_ids, seq_len + counts.random + spans)
    special = (rows < NUM_LEADING_SPECIALS) | (rows == vocab_size - 1)
    keys = noise[:, :seq_len]
    if masking.select != "token":
        if masking.select == "span":
            starts = noise[:, -seq_len:] < np.uint64(2**64 / (masking.span_length + 1e-9))
        elif word_starts is None:
            raise ValueError("masking.select: whole_word needs word_starts")
        else:
            starts = word_starts[rows]
        keys = _shared_in_units(keys, starts, special)
    # Special tokens sort last: the frame, and the </s> between documents, are never selected.
    keys[special] = np.iinfo(np.uint64).max
    order = _argsort(keys)
    unselected = np.sort(order[:, counts.predicted + counts.dropped :])
    holes, visible = order[:, : counts.holes], order[:, counts.holes : counts.predicted]
    position_ids = np.concatenate([unselected, visible, holes], axis=1)

    tokens = np.take_along_axis(rows.astype(np.int64), position_ids, axis=1)
    input_ids, labels = tokens[:, : counts.visible].copy(), tokens[:, -counts.predicted :]
    replaced = slice(unselected.shape[1], unselected.shape[1] + counts.random)
    draws = noise[:, seq_len : seq_len + counts.random]
    ordinary = vocab_size - NUM_LEADING_SPECIALS - 1
    input_ids[:, replaced] = NUM_LEADING_SPECIALS + (draws % np.uint64(ordinary)).astype(np.int64)
    return MaskedRows(input_ids, position_ids, np.ascontiguousarray(labels))


def _shared_in_units(
    keys: NDArray[np.uint64], starts: NDArray[np.bool_], special: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    """[B, T] every token gets the key of its unit's first one, so that units are drawn whole.

    The last unit drawn is cut where the count is reached.
    """
    starts = starts | special
    starts[:, 1:] |= special[:, :-1]
    first = np.maximum.accumulate(np.where(starts, np.arange(keys.shape[1]), 0), axis=1)
    return np.take_along_axis(keys, first, axis=1)


def _argsort(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[B, T] columns by rising key, equal keys from left to right.

    The column takes the key's low bits: sorting numbers is several times faster than argsort.
    """
    seq_len = keys.shape[1]
    low = np.uint64((1 << seq_len.bit_length()) - 1)
    packed = (keys & ~low) | np.arange(seq_len, dtype=np.uint64)
    packed.sort(axis=1)
    return (packed & low).astype(np.int64)


def _noise(seed: int, epoch: int, row_ids: NDArray[np.integer], count: int) -> NDArray[np.uint64]:
    """[B, count] random 64-bit words, a function of (seed, epoch, row id, column) alone.

    A counter-based generator (splitmix64), since seeding one of numpy's generators per row costs
    more than the draws.
    """
    start = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    row_keys = _splitmix64(start + row_ids.astype(np.uint64))
    return _splitmix64(row_keys[:, None] + np.arange(count, dtype=np.uint64)[None, :])


def _splitmix64(state: NDArray[np.unsignedinteger]) -> NDArray[np.uint64]:
    """Steele, Lea and Flood's (2014) finaliser over the golden-ratio sequence; wraps on purpose."""
    z = state * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
