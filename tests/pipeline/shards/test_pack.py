from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards.pack import pack as pack_with

CLS, SEP = 71, 2
pack = partial(pack_with, cls=CLS, sep=SEP)
DOCUMENTS = st.lists(st.lists(st.integers(4, 99), max_size=30))
SENTENCES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6))  # lengths, by document


def _arrays(documents: list[list[int]]) -> list[np.ndarray]:
    return [np.array(d, np.uint16) for d in documents]


def _check_frame(rows: np.ndarray, seq_len: int) -> None:
    assert rows.shape[1] == seq_len
    assert rows.dtype == np.uint16
    assert (rows[:, 0] == CLS).all()
    assert (rows[:, -1] == SEP).all()


@given(DOCUMENTS, st.integers(3, 12))
def test_nothing_is_lost_but_the_leftover(documents: list[list[int]], seq_len: int) -> None:
    rows, leftover, repeated = pack(_arrays(documents), seq_len)
    stream: list[int] = []
    for number, document in enumerate(documents):
        stream += ([2] if number else []) + document
    _check_frame(rows, seq_len)
    body = rows[:, 1:-1].ravel().tolist()
    assert 0 <= leftover < seq_len - 2
    assert repeated == 0
    assert body == stream[: len(stream) - leftover]
    assert len(body) + leftover == len(stream)


@given(DOCUMENTS, st.integers(3, 12))
def test_no_row_reaches_over_the_end_of_a_document(
    documents: list[list[int]], seq_len: int
) -> None:
    body = seq_len - 2
    rows, leftover, repeated = pack(_arrays(documents), seq_len, mode="doc-sentences")
    _check_frame(rows, seq_len)
    expected = []
    for document in documents:
        starts = list(range(0, len(document) - body + 1, body))
        if starts and starts[-1] + body < len(document):
            starts.append(len(document) - body)
        expected += [document[s : s + body] for s in starts]
    assert rows[:, 1:-1].tolist() == expected
    assert leftover == sum(len(d) for d in documents if len(d) < body)
    assert len(expected) * body == sum(map(len, documents)) - leftover + repeated


@given(SENTENCES, st.integers(4, 12))
def test_rows_begin_at_sentences_and_miss_no_token(lengths: list[list[int]], seq_len: int) -> None:
    body = seq_len - 2
    total = sum(sum(of) for of in lengths)
    ids = iter(range(10, 10 + total))
    documents, starts = [], []
    for of in lengths:
        documents.append([next(ids) for _ in range(sum(of))])
        marks = np.zeros(sum(of), bool)
        marks[np.cumsum([0, *of[:-1]])[: len(of)]] = True
        starts.append(marks)
    rows, leftover, repeated = pack(_arrays(documents), seq_len, starts=starts)
    _check_frame(rows, seq_len)
    stream: list[int] = []
    sentence_starts: set[int] = set()
    for number, (document, marks) in enumerate(zip(documents, starts, strict=True)):
        stream += [2] if number else []
        sentence_starts |= {len(stream) + i for i in np.flatnonzero(marks).tolist()}
        stream += document
    end = 0
    for row in rows[:, 1:-1].tolist():
        token = next(i for i, t in enumerate(row) if t != 2)
        at = stream.index(row[token]) - token
        assert stream[at : at + body] == row
        assert at <= end  # nothing between two rows
        cut_sentence = max((s for s in sentence_starts if s <= end), default=0)
        assert at in (cut_sentence, end)
        end = at + body
    assert len(stream) - end == leftover
    assert rows.shape[0] * body == end + repeated
