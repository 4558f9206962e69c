from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Shards
from pipeline.shards.assign import assign_shards, shard_counts, shard_documents, usual_number
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.tokens import encoded

TOKEN = np.dtype(np.uint32)
Entry = tuple[int, int, int, int]  # split, both halves of the hash, length


def _write(folder: Folder, groups: list[list[Entry]]) -> dict[Entry, list[int]]:
    """Groups of documents of numbered tokens; the tokens of each."""
    tokens: dict[Entry, list[int]] = {}
    for number, entries in enumerate(groups):
        index = np.zeros(len(entries), encoded.INDEX)
        for at, (split, high, low, length) in enumerate(sorted(entries)):
            index[at] = ((high, low), length, split)
            first = sum(map(len, tokens.values()))
            tokens[split, high, low, length] = list(range(first, first + length))
        own = [t for entry in sorted(entries) for t in tokens[entry]]
        files = {
            encoded.index_name(number): index,
            encoded.tokens_name(number): np.array(own, TOKEN),
            encoded.starts_name(number): np.array(own, np.uint32) % 3 == 0,
        }
        for name, array in files.items():
            folder.write(name, work.array_bytes(array))
    return tokens


HASH = st.integers(0, 2**64 - 1)
DOCUMENTS = st.lists(
    st.tuples(st.integers(0, 3), st.tuples(st.integers(0, 1), HASH, HASH, st.integers(0, 9))),
    max_size=40,
    unique_by=lambda document: document[1][:3],
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
@given(documents=DOCUMENTS, shards=st.integers(1, 5))
def test_the_shards_are_all_documents_by_hash(
    tmp_path_factory: pytest.TempPathFactory, documents: list[tuple[int, Entry]], shards: int
) -> None:
    folder = Folder(str(tmp_path_factory.mktemp("assign")))
    groups = [[entry for group, entry in documents if group == number] for number in range(4)]
    tokens = _write(folder, groups)
    asked = Shards(train=shards, valid=1)
    assign_shards(folder, 4, asked, fewest_tokens=20)
    found_shards = shard_counts(folder, asked)
    for code, split in enumerate(("train", "valid")):
        of = found_shards[split]
        in_split = [len(tokens[entry]) + 1 for entry in tokens if entry[0] == code]
        assert of == max(1, min(shards if split == "train" else 1, sum(in_split) // 20))
        expected = [tokens[entry] for entry in sorted(tokens) if entry[0] == code]
        found = []
        for shard in range(of):
            of_shard = shard_documents(folder, split, shard, dtype=TOKEN, sentences=True)
            found += [some.tolist() for some in of_shard.tokens]
            for some, starts in zip(of_shard.tokens, of_shard.starts or [], strict=True):
                assert (some % 3 == 0).tolist() == starts.tolist()
        assert found == expected


def test_shards_are_even_to_within_a_document(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups = [
        [(0, int(high), 0, int(length)) for high, length in zip(*columns, strict=True)]
        for columns in (
            (rng.integers(0, 2**64, 400, np.uint64), rng.integers(1, 90, 400)) for _ in range(5)
        )
    ]
    folder = Folder(str(tmp_path))
    _write(folder, groups)
    assign_shards(folder, 5, Shards(train=7, valid=1), fewest_tokens=1024)
    shards = [
        shard_documents(folder, "train", shard, dtype=TOKEN, sentences=False) for shard in range(7)
    ]
    sizes = [sum(len(some) + 1 for some in shard.tokens) for shard in shards]
    assert max(sizes) - min(sizes) <= 2 * 90


@pytest.mark.parametrize(
    ("tokens", "shards"),
    [
        (0, 0),  # and one in the end
        (1_500_000, 2),  # 6 MB of text
        (40_000_000, 8),
        (3_400_000_000, 25),  # 16 GB
        (2_100_000_000_000, 15_646),  # 10 TB: 269 MB each
    ],
)
def test_the_usual_number_of_shards(tokens: int, shards: int) -> None:
    assert usual_number(tokens) == shards


def test_as_many_shards_as_usual_unless_asked(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert shard_counts(folder, Shards()) == {"train": 1, "valid": 1}  # before they are assigned
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 1100, np.uint64)
    _write(folder, [[(0, int(high), 0, 999) for high in hashes]])  # 2.1 times 2^19 tokens
    assign_shards(folder, 1, Shards(), fewest_tokens=1024)
    assert shard_counts(folder, Shards())["train"] == 2
