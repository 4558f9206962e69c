"""What a table of neighbours would reach: the bigram line beside the unigram one.

A run that ends below both has learned more than frequencies and left neighbours. The probability
of a token after its left neighbour is p(w | v) = (c(v, w) + b p(w)) / (c(v) + b), with counts and
frequencies p(w) of the training sequences and the b that suits held-out ones best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

PRIORS = (3.0, 10.0, 30.0, 100.0, 300.0)  # b, in tokens


class Bigram:
    """Tokens after their left neighbour, interpolated with their frequencies."""

    def __init__(
        self, sequences: NDArray[np.integer], log_frequencies: NDArray[np.floating]
    ) -> None:
        """Count; every 20th of `sequences` [N, T] is held out to choose b.

        Args:
            sequences: token ids.
            log_frequencies: [V] of single tokens.
        """
        self._unigram = np.exp(log_frequencies.astype(np.float64))
        held_out = np.arange(len(sequences)) % 20 == 0
        counted = sequences[~held_out]
        size = len(self._unigram)
        pairs = (counted[:, :-1].ravel(), counted[:, 1:].ravel())
        ones = np.ones(len(pairs[0]))
        self._counts: csr_array = csr_array(coo_array((ones, pairs), shape=(size, size)))
        self._totals = np.asarray(self._counts.sum(axis=1)).ravel()
        left, right = (part.ravel() for part in (sequences[held_out, :-1], sequences[held_out, 1:]))
        self.prior = min(PRIORS, key=lambda prior: self.loss(left, right, prior))

    def loss(
        self, left: NDArray[np.integer], right: NDArray[np.integer], prior: float | None = None
    ) -> float:
        """Mean cross-entropy in nats of tokens `right` [n] after `left` [n], or nan of none."""
        prior = self.prior if prior is None else prior
        seen = np.asarray(self._counts[left, right]).ravel()
        chances = (seen + prior * self._unigram[right]) / (self._totals[left] + prior)
        return float(-np.log(chances).mean())


def neighbours(
    sequences: NDArray[np.integer], positions: Sequence[NDArray[np.integer]]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The tokens at `positions`[i] of sequence i, and those to their left: (left, right)."""
    pairs = [(ids[at - 1], ids[at]) for ids, at in zip(sequences, positions, strict=True)]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])
