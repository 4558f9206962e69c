import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pack import pack


@given(st.lists(st.lists(st.integers(4, 99), max_size=30)), st.integers(3, 12))
def test_nothing_is_lost_but_the_leftover(documents: list[list[int]], seq_len: int) -> None:
    rows, leftover = pack([np.array(d, np.uint16) for d in documents], seq_len)
    stream: list[int] = []
    for number, document in enumerate(documents):
        stream += ([2] if number else []) + document
    assert rows.shape[1] == seq_len
    assert rows.dtype == np.uint16
    assert (rows[:, 0] == 0).all()
    assert (rows[:, -1] == 2).all()
    body = rows[:, 1:-1].ravel().tolist()
    assert 0 <= leftover < seq_len - 2
    assert body == stream[: len(stream) - leftover]
    assert len(body) + leftover == len(stream)
