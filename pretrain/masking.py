"""Which tokens are predicted and what replaces them: a pure function of (seed, epoch, sequence).

Counts are fixed per sequence (rates, rounded), so every step has the same shapes: no padding mask,
one compiled graph. A sequence comes out in the order that `model.py` reads: visible tokens that are
not predicted, visible tokens that are predicted (replaced by a random token or kept), then the mask
positions. Tokens that are selected beyond `loss_fraction` are dropped: they are in none of these,
and no layer spends anything on them.

Special tokens are never predicted. Ordinary tokens are selected first, in random order. A sequence
that has fewer of them than are selected (short documents packed together) fills the surplus
positions with special tokens whose label is IGNORE: no random token replaces them, and they don't
count in the loss. So a special token can be hidden from the early layers, or dropped, only in a
sequence with more special tokens than unselected positions (more than half of it at a rate of
50 %), and even there it has no label. The first token and the last always stay visible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import PretrainError
from pretrain.recipe import MaskingConfig
from pretrain.vocabulary import Vocabulary

IGNORE = -100  # label of a position that is not predicted: torch's ignore_index


class MaskedBatch(NamedTuple):
    """B masked sequences; T = n + m positions, of which the last s are selected for prediction."""

    input_ids: NDArray[np.int64]  # [B, n] visible tokens, random replacements among them
    position_ids: NDArray[np.int64]  # [B, T] 0-based: of `input_ids`, then of the m masked tokens
    labels: NDArray[np.int64]  # [B, s] original tokens at the last s positions, or IGNORE

    @property
    def num_predicted(self) -> int:
        """Number of labels that are not IGNORE.

        Losses are sums over these tokens, so every predicted token weighs the same, whatever
        sequence it is in: a sequence with fewer of them weighs less.
        """
        return int(np.count_nonzero(self.labels != IGNORE))


@dataclass(frozen=True)
class MaskCounts:
    """Tokens of one sequence by their treatment; `visible + masked + dropped` is all of it."""

    visible: int  # n
    predicted: int  # s; the labels of special tokens among them are IGNORE
    masked: int  # m, masked out: they enter as [MASK] at `insert_layer`
    random: int
    dropped: int  # selected, but neither shown nor predicted

    @property
    def positions(self) -> int:
        """T, the number of positions in the layers that see everything."""
        return self.visible + self.masked


def mask_counts(masking: MaskingConfig, seq_len: int) -> MaskCounts:
    """Fixed counts for sequences of `seq_len` tokens between cls and sep, which are among them."""
    selected = round(masking.rate * (seq_len - 2))
    predicted = round(masking.loss_fraction * selected)
    masked = round(masking.masked_share * predicted)
    random = min(round(masking.random_share * predicted), predicted - masked)
    dropped = selected - predicted
    if predicted == 0:
        raise PretrainError(
            f"masking.rate = {masking.rate} with masking.loss_fraction = {masking.loss_fraction} "
            f"predicts no token of a sequence of {seq_len}; raise one of them"
        )
    visible = seq_len - masked - dropped
    if visible == 2:
        raise PretrainError(
            f"masking.rate = {masking.rate} leaves no token of a sequence of {seq_len} visible; "
            "lower it"
        )
    return MaskCounts(visible, predicted, masked, random, dropped)


def mask_sequences(
    sequences: NDArray[np.integer],
    sequence_ids: NDArray[np.integer],
    *,
    masking: MaskingConfig,
    vocabulary: Vocabulary,
    seed: int,
    epoch: int,
    word_starts: NDArray[np.bool_] | None = None,
) -> MaskedBatch:
    """Mask B sequences of `seq_len` tokens.

    Args:
        sequences: [B, seq_len] token ids; the first column is cls, the last sep.
        sequence_ids: [B] index of each sequence in its split: the noise depends on it alone, so a
            batch is the same on any number of ranks.
        masking: rates and shares.
        vocabulary: which tokens are special; random replacements are drawn from the others.
        seed: of the run.
        epoch: how often the sequences have been seen before.
        word_starts: [V] which tokens begin a word; needed for `select: whole_word`.
    """
    seq_len = sequences.shape[1]
    counts = mask_counts(masking, seq_len)
    spans = seq_len if masking.select == "span" else 0
    noise = _noise(seed, epoch, sequence_ids, seq_len + counts.random + spans)
    is_special = vocabulary.is_special[sequences]
    keys = noise[:, :seq_len]
    if masking.select != "token":
        if masking.select == "span":
            starts = noise[:, -seq_len:] < np.uint64(2**64 / (masking.span_length + 1e-9))
        elif word_starts is None:
            raise ValueError("masking.select: whole_word needs word_starts")
        else:
            starts = word_starts[sequences]
        keys = _shared_in_units(keys, starts, is_special)
    order = _argsort(_specials_last(keys, is_special))
    unselected = np.sort(order[:, counts.predicted + counts.dropped :])
    masked, shown = order[:, : counts.masked], order[:, counts.masked : counts.predicted]
    position_ids = np.concatenate([unselected, shown, masked], axis=1)

    tokens = np.take_along_axis(sequences.astype(np.int64), position_ids, axis=1)
    input_ids, labels = tokens[:, : counts.visible].copy(), tokens[:, -counts.predicted :]
    surplus = np.take_along_axis(is_special, position_ids[:, -counts.predicted :], axis=1)
    replaced = slice(unselected.shape[1], unselected.shape[1] + counts.random)
    draws = noise[:, seq_len : seq_len + counts.random]
    ordinary = vocabulary.ordinary
    random = ordinary[(draws % np.uint64(len(ordinary))).astype(np.int64)]
    input_ids[:, replaced] = np.where(surplus[:, : counts.random], input_ids[:, replaced], random)
    return MaskedBatch(input_ids, position_ids, np.where(surplus, IGNORE, labels))


def _specials_last(keys: NDArray[np.uint64], is_special: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """[B, T] keys that order ordinary tokens as before, then special ones, then cls and sep.

    The last two are in the first and last column. Halved, the keys of ordinary tokens lie strictly
    below those of the special ones.
    """
    keys = keys >> np.uint64(1)
    keys[is_special] = np.uint64(2**63)
    keys[:, [0, -1]] = np.iinfo(np.uint64).max
    return keys


def _shared_in_units(
    keys: NDArray[np.uint64], starts: NDArray[np.bool_], is_special: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    """[B, T] every token gets the key of its unit's first one, so that units are drawn whole.

    The last unit drawn is cut where the count is reached.
    """
    starts = starts | is_special
    starts[:, 1:] |= is_special[:, :-1]
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


def _noise(
    seed: int, epoch: int, sequence_ids: NDArray[np.integer], count: int
) -> NDArray[np.uint64]:
    """[B, count] random 64-bit words, a function of (seed, epoch, sequence id, column) alone.

    A counter-based generator (splitmix64), since seeding one of numpy's generators per sequence
    costs more than the draws.
    """
    start = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    stream_keys = _splitmix64(start + sequence_ids.astype(np.uint64))
    return _splitmix64(stream_keys[:, None] + np.arange(count, dtype=np.uint64)[None, :])


def _splitmix64(state: NDArray[np.unsignedinteger]) -> NDArray[np.uint64]:
    """Steele, Lea and Flood's (2014) finaliser over the golden-ratio sequence; wraps on purpose."""
    z = state * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
