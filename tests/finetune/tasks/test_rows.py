"""Flat token rows give back what went in, from memory and from disk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.tasks.rows import Rows, by_length

SEQUENCES = st.lists(st.lists(st.integers(0, 60000), min_size=1, max_size=6), min_size=1)


@given(SEQUENCES, st.booleans())
def test_pack_and_read(
    tmp_path_factory: pytest.TempPathFactory, sequences: list[list[int]], labelled: bool
) -> None:
    targets = list(range(len(sequences))) if labelled else None
    columns = {"input_ids": sequences, "token_type_ids": [[1] * len(s) for s in sequences]}
    rows = Rows.pack(columns, targets)
    path = tmp_path_factory.mktemp("rows") / "inner" / "rows.npz"
    rows.save(path)
    for found in (rows, Rows.read(path), rows.select(range(len(rows)))):
        assert [row["input_ids"] for row in found] == sequences
        assert found[-1]["token_type_ids"] == [1] * len(sequences[-1])
        assert [row.get("labels") for row in found] == (targets or [None] * len(sequences))
        assert found.lengths.tolist() == list(map(len, sequences))
    assert not list(path.parent.glob("*.partial"))


def test_choices_are_nested_and_as_long_as_their_longest() -> None:
    rows = Rows.pack({"input_ids": [[1], [2, 3], [4, 5, 6], [7]]}, [0, 1], choices=2)
    assert len(rows) == 2 and rows[1] == {"input_ids": [[4, 5, 6], [7]], "labels": 1}
    assert rows.lengths.tolist() == [2, 3] and by_length(rows).tolist() == [1, 0]
    assert rows.select([1])[0] == rows[1]
    with pytest.raises(IndexError):
        rows[2]


def test_scores_stay_floats() -> None:
    rows = Rows.pack({"input_ids": [[1], [2]]}, [0.5, 4.8])
    assert rows[1]["labels"] == 4.8 and isinstance(rows[0]["labels"], float)
    assert rows.targets is not None and rows.targets.dtype == np.float64
