"""What a table of neighbours would reach: the bigram line beside the unigram one.

A run that ends below both has learned more than frequencies and left neighbours. The probability
of a piece after its left neighbour is p(w | v) = (c(v, w) + b p(w)) / (c(v) + b), with counts and
frequencies p(w) of the training rows and the b that suits held-out training rows best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

PRIORS = (3.0, 10.0, 30.0, 100.0, 300.0)  # b, in tokens


class Bigram:
    """Pieces after their left neighbour, interpolated with their frequencies."""

    def __init__(self, rows: NDArray[np.integer], log_frequencies: NDArray[np.floating]) -> None:
        """Count; every 20th of `rows` [N, T] is held out to choose b.

        Args:
            rows: token ids.
            log_frequencies: [V] of single pieces.
        """
        self._unigram = np.exp(log_frequencies.astype(np.float64))
        held_out = np.arange(len(rows)) % 20 == 0
        counted = rows[~held_out]
        size = len(self._unigram)
        pairs = (counted[:, :-1].ravel(), counted[:, 1:].ravel())
        ones = np.ones(len(pairs[0]))
        self._counts: csr_array = csr_array(coo_array((ones, pairs), shape=(size, size)))
        self._totals = np.asarray(self._counts.sum(axis=1)).ravel()
        left, right = (part.ravel() for part in (rows[held_out, :-1], rows[held_out, 1:]))
        self.prior = min(PRIORS, key=lambda prior: self.loss(left, right, prior))

    def loss(
        self, left: NDArray[np.integer], right: NDArray[np.integer], prior: float | None = None
    ) -> float:
        """Mean cross-entropy in nats of pieces `right` [n] after `left` [n], or nan of none."""
        prior = self.prior if prior is None else prior
        seen = np.asarray(self._counts[left, right]).ravel()
        chances = (seen + prior * self._unigram[right]) / (self._totals[left] + prior)
        return float(-np.log(chances).mean())


def neighbours(
    rows: NDArray[np.integer], places: Sequence[NDArray[np.integer]]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The pieces at `places`[i] of row i, and those to their left: (left, right)."""
    pairs = [(row[where - 1], row[where]) for row, where in zip(rows, places, strict=True)]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])
