from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import Item, plan, read
from pipeline.sources.records import Document, Rejected


def _read(source: Source, chunk_bytes: int = 1000) -> list[list[Item]]:
    return [
        [item for file in chunk.files for item in read(source, file)]
        for chunk in plan([source], chunk_bytes)
    ]


def _write(path: Path, **columns: list) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=10, compression="none")
    return str(path)


def test_row_groups_are_read_in_parts_and_in_order(tmp_path: Path) -> None:
    texts = [f"text {i} " * 20 for i in range(95)]
    path = _write(tmp_path / "a.parquet", text=texts, more=[0] * 95)
    parts = _read(Source(kind="parquet", paths=[path]))
    assert len(parts) > 3
    found = [item for part in parts for item in part]
    assert [item.text for item in found if isinstance(item, Document)] == texts
    assert [item.id for item in found if isinstance(item, Document)][90:] == [
        f"parquet/a.parquet:{i}" for i in range(90, 95)
    ]


def test_ids_and_rows_without_text(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", body=["a", None], key=["x", "y"])
    (part,) = _read(Source(kind="parquet", paths=[path], text_key="body", id_key="key"), 10**6)
    assert part == [
        Document("parquet/a.parquet:x", "a", "parquet"),
        Rejected(f"{path}:1", "'body' is NoneType"),
    ]


def test_a_missing_column_and_a_cut_file_are_bad(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", body=["a"])
    with pytest.raises(BadFile, match=r"no column 'text'.*it has body.*bad_files: skip"):
        _read(Source(kind="parquet", paths=[path]))
    whole = Path(_write(tmp_path / "b.parquet", text=["a" * 50] * 50)).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-20])
    with pytest.raises(BadFile, match=r"b\.parquet: not a whole Parquet file"):
        _read(Source(kind="parquet", paths=[str(tmp_path / "b.parquet")]))
    (tmp_path / "b.parquet").write_bytes(whole[:100] + b"\xff" * 1000 + whole[1100:])
    skipping = Source(kind="parquet", paths=[str(tmp_path / "b.parquet")], bad_files="skip")
    assert any(
        "bad file" in i.reason for part in _read(skipping) for i in part if isinstance(i, Rejected)
    )
