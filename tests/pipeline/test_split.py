from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Split
from pipeline.errors import PipelineError
from pipeline.split import (
    CHARACTERS_PER_TOKEN,
    document_hash,
    part_id,
    split_of,
    with_validation,
)

# what a float can tell apart
_digests = st.binary(min_size=6, max_size=6).map(lambda start: start + bytes(2))
_documents = st.lists(st.tuples(_digests, st.integers(1, 3000)))

SPLIT = Split(valid=0.1, tasks=0.3)


def test_shares_are_as_asked() -> None:
    digests = [document_hash(f"document {i}") for i in range(20_000)]
    counts = Counter(split_of(digest, SPLIT) for digest in digests)
    assert abs(counts["valid"] / 20_000 - 0.1) < 0.01
    assert abs(counts["tasks"] / 20_000 - 0.3) < 0.015


def _pieces(documents: list[tuple[bytes, int]], size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    parts = [documents[at : at + size] for at in range(0, len(documents), size)]
    return [
        (
            np.array([int.from_bytes(digest, "big") for digest, _ in part], np.uint64),
            np.array([characters for _, characters in part], np.uint64),
        )
        for part in parts
    ]


@given(_documents, st.integers(1, 9), st.sampled_from([0.005, 0.3]), st.integers(3, 300))
def test_validation_has_what_it_takes_for_a_sequence(
    documents: list[tuple[bytes, int]], size: int, valid: float, seq_len: int
) -> None:
    documents = list({digest: (digest, n) for digest, n in documents}.values())
    asked = Split(valid=valid)
    if len(documents) < 2:
        if sum(n for d, n in documents if split_of(d, asked) == "valid") < seq_len:
            with pytest.raises(PipelineError, match="document is left"):
                with_validation(asked, _pieces(documents, size), seq_len)
        return
    split = with_validation(asked, _pieces(documents, size), seq_len)
    other_pieces = _pieces(sorted(documents, reverse=True), size + 3)
    assert with_validation(asked, other_pieces, seq_len) == split

    def held(split: Split) -> list[tuple[bytes, int]]:
        return sorted(d for d in documents if split_of(d[0], split) == "valid")

    before, after = held(asked), held(split)
    enough = CHARACTERS_PER_TOKEN * seq_len
    if sum(n for _, n in before) >= enough:
        assert split == asked
        return
    assert after
    assert after == sorted(documents)[: len(after)]  # the smallest hashes
    assert sum(n for _, n in after) >= enough or len(after) >= len(documents) // 2
    added = after[len(before) :]
    assert not added or len(after) <= max(1, len(documents) // 2)
    assert not added or sum(n for _, n in after[:-1]) < enough  # and no more than it takes


def test_one_document_of_many_parts_is_one_document() -> None:
    parts = (np.full(9, 2**62, np.uint64), np.full(9, 500))
    other = (np.array([2**63], np.uint64), np.ones(1))
    with pytest.raises(PipelineError, match="1 document is left"):
        with_validation(Split(), [parts], 128)
    for pieces in ([parts, other], [other, parts]):
        assert 1 / 4 < with_validation(Split(), pieces, 128).valid < 1 / 2


def test_all_parts_of_a_document_are_in_its_split_and_none_is_another() -> None:
    for book in (f"books/{i}.txt" for i in range(300)):
        parts = [part_id(book, number) for number in range(1, 13)]
        digests = [document_hash(part) for part in parts]
        assert parts[0] == book
        assert {split_of(digest, SPLIT) for digest in digests} == {split_of(digests[0], SPLIT)}
        assert len(set(digests)) == 12
