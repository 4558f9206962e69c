"""Both encodings against numpy, and their size against the entropy bound."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from finetune.errors import FinetuneError
from finetune.masks.coding import decode, dropped, encode, entropy_bits, pack_bits, pack_positions


@given(arrays(bool, st.integers(1, 2000)), st.sampled_from(["gaps", "bits"]))
def test_round_trip(mask: np.ndarray, encoding: str) -> None:
    kind, coded = encode(mask, encoding)
    assert coded.dtype == np.uint8
    assert np.array_equal(decode(kind, coded, mask.size, "m"), mask)
    assert np.array_equal(dropped(kind, coded, mask.size, "m"), np.flatnonzero(~mask))


@given(st.lists(st.integers(0, 3000), min_size=0, max_size=20))
def test_gaps_of_any_length(gaps: list[int]) -> None:
    positions = np.cumsum(np.array(gaps, dtype=np.int64) + 1) - 1
    count = int(positions[-1]) + 500 if gaps else 500
    mask = np.ones(count, dtype=bool)
    mask[positions.astype(int)] = False
    kind, coded = encode(mask, "gaps")
    assert np.array_equal(dropped(kind, coded, count, "m"), positions)


def test_the_format_needs_no_code_of_ours() -> None:
    mask = np.random.default_rng(0).random((64, 96)) > 0.05
    symbols = zlib.decompress(pack_positions(np.flatnonzero(~mask)))
    position, found = -1, []
    for symbol in symbols:  # docs/formats.md, section C, word by word
        if symbol == 255:
            position += 255
        else:
            position += symbol + 1
            found.append(position)
    assert found == np.flatnonzero(~mask).tolist()


@pytest.mark.parametrize("share", [0.01, 0.03, 0.05, 0.1, 0.3, 0.5, 0.7, 0.95])
def test_size_is_within_a_tenth_of_the_entropy(share: float) -> None:
    mask = np.random.default_rng(1).random(768 * 3072) >= share
    _, coded = encode(mask, "gaps")
    assert 0.98 < 8 * coded.size / entropy_bits(mask.size, 1 - mask.mean()) < 1.03


def test_entropy_is_the_papers_quarter_of_a_bit() -> None:
    assert entropy_bits(1_000_000, 0.05) == pytest.approx(286_397, rel=1e-5)
    assert entropy_bits(10, 0.0) == entropy_bits(10, 1.0) == 0


def test_damage_is_told() -> None:
    mask = np.random.default_rng(2).random(4096) > 0.05
    coded = pack_positions(np.flatnonzero(~mask))
    for broken in (coded[:-3], coded[3:], np.r_[coded[:20], coded[20:] ^ 1]):
        with pytest.raises(FinetuneError, match=r"layer\.7: .*damaged"):
            decode("zeros", broken, mask.size, "layer.7")
    with pytest.raises(FinetuneError, match=r"position \d+, expected less than 1000"):
        decode("zeros", coded, 1000, "layer.7")
    with pytest.raises(FinetuneError, match=r"found 511 elements.*expected 512 bytes"):
        decode("bits", pack_bits(mask)[:-1], mask.size, "layer.7")
