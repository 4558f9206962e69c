from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.store import catalog, pieces, work
from pipeline.store.catalog import PIECE, Catalog
from pipeline.store.folder import Folder


def test_what_was_written_is_found(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    counts = {"00000-000": 3, "00000-001": 1, "00002-000": 4}
    for name, documents in counts.items():
        work.write_certified(
            folder, pieces.documents_name(name), b"", documents=documents, text_bytes=10 * documents
        )
    for chunk in range(3):
        names = [name for name in counts if name.startswith(f"{chunk:05}")]
        work.write_json(folder, pieces.chunk_name(chunk), {"pieces": names})
    assert catalog.write(folder, 3) == 3
    found = Catalog.load(folder)
    assert [found.name(piece) for piece in range(len(found))] == list(counts)
    every = [(name, ordinal) for name, count in counts.items() for ordinal in range(count)]
    assert [found.position(number) for number in range(found.documents)] == every
    for piece in range(len(found)):
        numbers = found.numbers(piece)
        assert [name for name, _ in every[numbers]] == [found.name(piece)] * counts[
            found.name(piece)
        ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 50), most=st.integers(1, 60))
def test_each_piece_is_in_one_group(monkeypatch: pytest.MonkeyPatch, count: int, most: int) -> None:
    monkeypatch.setattr(catalog, "GROUPS", most)
    listed = Catalog(np.zeros(count, PIECE))
    groups = [list(listed.group(group)) for group in range(listed.groups)]
    assert [piece for group in groups for piece in group] == list(range(count))
    assert len(groups) <= most
    sizes = {len(group) for group in groups}
    assert not sizes or max(sizes) - min(sizes) <= 1
