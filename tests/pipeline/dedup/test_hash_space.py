import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup import duplicates, near_duplicates
from pipeline.dedup.hash_space import parts, rows_of_part

EDGES = [0, 1, 2**61 - 1, 2**61, 2**63, 2**64 - 1]


@given(st.lists(st.integers(0, 2**64 - 1) | st.sampled_from(EDGES)), st.integers(1, 9))
def test_each_hash_is_in_one_part(values: list[int], of: int) -> None:
    array = np.zeros(len(values), [("low", "u4"), ("hash", "u8")])
    array["hash"] = np.sort(np.array(values, np.uint64))
    found = [rows_of_part(array, "hash", part, of) for part in range(of)]
    assert np.concatenate(found).tolist() == array.tolist()
    for part, rows in enumerate(found):
        assert all(int(row["hash"]) * of // 2**64 == part for row in rows)


def test_parts_are_bounded() -> None:
    assert parts(0) == parts(1000) == 1
    assert parts(2_000_000) == parts(10**8) == 8
    assert parts(10**11) * 16_000_000 >= 10**11


@pytest.mark.parametrize(
    ("dtype", "key"), [(duplicates.RECORD, "high"), (near_duplicates.BAND, "key")]
)
def test_a_part_is_read_without_the_others(dtype: np.dtype, key: str) -> None:
    array = np.zeros(400_000, dtype)
    array[key] = np.sort(np.random.default_rng(0).integers(0, 2**64, len(array), np.uint64))
    assert array[key].flags.aligned
    tracemalloc.start()
    rows = rows_of_part(array, key, 40, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) > 3000
    assert peak < array.nbytes / 10
