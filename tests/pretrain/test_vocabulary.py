"""Masking with special tokens at any ids, against masking with them at RoBERTa's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.data import ShardFolder
from pretrain.errors import PretrainError
from pretrain.manifest import content_sha256, parse_manifest
from pretrain.masking import mask_sequences
from pretrain.recipe import MaskingConfig
from pretrain.vocabulary import PARTS, Vocabulary

SIZE = 40
ROBERTAS = Vocabulary.robertas(SIZE)


def renumbering(vocabulary: Vocabulary) -> np.ndarray:
    """[V] RoBERTa's ids to those of `vocabulary`; ordinary tokens keep their order."""
    new = np.empty(SIZE, dtype=np.int64)
    special = [getattr(ROBERTAS, part) for part in PARTS]
    new[special] = [getattr(vocabulary, part) for part in PARTS]
    ordinary = [index for index in range(SIZE) if index not in special]
    taken = set(new[special].tolist())
    new[ordinary] = [index for index in range(SIZE) if index not in taken]
    return new


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, SIZE - 1), min_size=5, max_size=5, unique=True),
    select=st.sampled_from(["token", "whole_word", "span"]),
    documents=st.integers(0, 12),
    seed=st.integers(0, 10**6),
)
def test_other_ids_give_the_same_masks(
    ids: list[int], select: str, documents: int, seed: int
) -> None:
    vocabulary = Vocabulary(SIZE, *ids)
    new = renumbering(vocabulary)
    draw = np.random.default_rng(seed)
    sequences = draw.integers(4, SIZE - 1, size=(4, 24))
    sequences[:, 0] = ROBERTAS.cls
    sequences[:, draw.integers(1, 24, size=documents)] = ROBERTAS.sep
    sequences[:, -1] = ROBERTAS.sep
    starts = draw.random(SIZE) < 0.5
    masking = MaskingConfig(rate=0.5, select=select)  # type: ignore[arg-type]
    common: dict[str, Any] = {"masking": masking, "seed": seed, "epoch": 1}
    expected = mask_sequences(
        sequences, np.arange(4), vocabulary=ROBERTAS, word_starts=starts, **common
    )
    found = mask_sequences(
        new[sequences], np.arange(4), vocabulary=vocabulary, word_starts=starts[new.argsort()],
        **common,
    )  # fmt: skip
    np.testing.assert_array_equal(found.position_ids, expected.position_ids)
    np.testing.assert_array_equal(found.input_ids, new[expected.input_ids])
    is_label = expected.labels >= 0
    np.testing.assert_array_equal(found.labels >= 0, is_label)
    np.testing.assert_array_equal(found.labels[is_label], new[expected.labels[is_label]])
    assert not np.isin(found.labels, ids).any()


def with_special_tokens(folder: Path, **changes: object) -> bytes:
    """The manifest as version 2 of the format."""
    manifest = json.loads((folder / "manifest.json").read_text())
    last = manifest["vocab_size"] - 1
    ids = {"cls": 0, "sep": 2, "pad": 1, "unk": 3, "mask": last} | changes
    return json.dumps(manifest | {"version": 2, "special_tokens": ids}).encode()


def test_both_versions_of_a_manifest_are_read(shard_folder: Path) -> None:
    data = ShardFolder(shard_folder)  # version 1
    assert data.vocabulary == Vocabulary.robertas(data.manifest["vocab_size"])
    raw = with_special_tokens(shard_folder)
    assert parse_manifest(raw, "x")["special_tokens"]["sep"] == 2
    assert content_sha256(raw) != data.sha256  # another file, so another data set


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cls": None}, r"special_tokens\.cls is None, expected a whole number"),
        ({"cls": True}, r"special_tokens\.cls is True, expected a whole number"),
        ({"sep": "2"}, r"special_tokens\.sep is '2', expected a whole number"),
        ({"mask": 9999}, r"special_tokens\.mask is 9999, expected an id below vocab_size = 2"),
        ({"unk": 2}, r"special_tokens\.sep is 2, expected an id that no other special token has"),
    ],
)
def test_ids_that_cannot_be_are_named(
    shard_folder: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(PretrainError, match=rf"data/manifest\.json: {message}.*pipeline"):
        parse_manifest(with_special_tokens(shard_folder, **changes), "data/manifest.json")


def test_a_manifest_of_version_2_needs_special_tokens(shard_folder: Path) -> None:
    manifest = json.loads((shard_folder / "manifest.json").read_text()) | {"version": 2}
    with pytest.raises(PretrainError, match="special_tokens is missing, expected an object"):
        parse_manifest(json.dumps(manifest).encode(), "x")
