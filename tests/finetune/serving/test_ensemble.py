"""The three votes against counting by hand; the tie rule."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from finetune.errors import FinetuneError
from finetune.serving.ensemble import vote

LOGITS = arrays(
    float,
    st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(2, 5)),
    elements=st.integers(-8, 8).map(float),
)


@given(LOGITS)
def test_label_vote_is_the_most_common_first_seen_label(logits: np.ndarray) -> None:
    decided = vote(logits, "label").argmax(axis=1)
    for row in range(logits.shape[1]):
        labels = [int(model[row].argmax()) for model in logits]
        # Counter keeps insertion order, and most_common is stable: ties go to the first seen.
        assert decided[row] == Counter(labels).most_common(1)[0][0]


@given(LOGITS)
def test_probability_and_logit_votes(logits: np.ndarray) -> None:
    np.testing.assert_allclose(
        vote(logits, "probability"), softmax(logits, axis=2).mean(axis=0), atol=1e-12
    )
    np.testing.assert_allclose(vote(logits, "logit"), logits.sum(axis=0) / len(logits), atol=1e-12)


def test_the_votes_can_differ() -> None:
    logits = np.array([[[0.0, 0.1]], [[0.0, 0.1]], [[9.0, 0.0]]])
    assert vote(logits, "label").argmax() == 1
    assert vote(logits, "probability").argmax() == 0
    assert vote(logits, "logit").argmax() == 0


def test_an_unknown_vote_is_an_error() -> None:
    with pytest.raises(FinetuneError, match="found 'mean', expected one of label, prob"):
        vote(np.zeros((1, 1, 2)), "mean")
