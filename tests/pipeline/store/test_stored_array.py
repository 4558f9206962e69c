import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup.duplicates import RECORD
from pipeline.store.stored_array import StoredArray, begin_of_rows, rows_between
from pipeline.tokens.encoded import INDEX

ROW = np.dtype([("hash", "u8"), ("number", "u4")])


class File:
    """An .npy file, and how many of its bytes were read."""

    def __init__(self, array: np.ndarray) -> None:
        content = io.BytesIO()
        np.save(content, array)
        self.content = content.getvalue()
        self.read_bytes = 0

    def read(self, start: int, stop: int) -> bytes:
        self.read_bytes += stop - start
        return self.content[start:stop]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (1,), (5000,), (700, 3, 2)])
@pytest.mark.parametrize("dtype", ["u1", "<u8", "bool", "u2"])
def test_rows_are_numpys(shape: tuple[int, ...], dtype: str) -> None:
    rows = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    array = StoredArray(File(rows).read)
    assert (array.shape, array.dtype, len(array)) == (rows.shape, rows.dtype, len(rows))
    for some in (slice(None), slice(0, 3), slice(200, 650), slice(-2, None), slice(9, 2)):
        assert array[some].shape == rows[some].shape
        assert (array[some] == rows[some]).all()
    numbers = np.array([4, 0, 4, 699], np.uint64)
    if len(rows) > 699:
        assert (array[numbers] == rows[numbers]).all()
    assert (array[numbers[:0]] == rows[numbers[:0]]).all()


@pytest.mark.parametrize("dtype", [ROW, np.dtype("u2"), np.dtype(bool), RECORD, INDEX])
def test_rows_begin_at_one_place_whatever_their_number(dtype: np.dtype) -> None:
    for count in (0, 9, 10**4, 10**15, 2**62):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header,
            {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (count,),
            },
        )
        assert header.tell() == begin_of_rows(dtype)


def test_a_few_rows_are_not_all_of_the_file() -> None:
    file = File(np.zeros(1_000_000, ROW))
    assert len(StoredArray(file.read)[500_000:500_100]) == 100
    assert file.read_bytes < 10_000


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=60),
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 400)), max_size=3),
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
)
def test_rows_between_are_those_of_a_plain_search(
    hashes: list[int], repeated: list[tuple[int, int]], bounds: tuple[int, int]
) -> None:
    """Also where hashes are anything but even: many equal ones, or few."""
    low, high = sorted(bounds)
    every = sorted(hashes + [h for value, times in repeated for h in [value] * times])
    rows = np.zeros(len(every), ROW)
    rows["hash"] = every
    rows["number"] = np.arange(len(every))
    expected = [number for number, value in enumerate(every) if low <= value <= high]
    found = rows_between(StoredArray(File(rows).read), "hash", low, high)
    assert found["number"].tolist() == expected


def test_rows_between_reads_little_more_than_them() -> None:
    rows = np.zeros(1_000_000, ROW)
    rows["hash"] = np.sort(np.random.default_rng(0).integers(0, 2**64, len(rows), "u8"))
    file = File(rows)
    part = rows_between(StoredArray(file.read), "hash", 2**62, 2**62 + 2**64 // 100)
    assert 9_000 < len(part) < 11_000
    assert file.read_bytes < 2 * 10_000 * ROW.itemsize
