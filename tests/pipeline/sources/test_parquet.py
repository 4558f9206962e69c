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
        Rejected(f"{path}:1", "'body' is null, expected a text"),
    ]


def test_the_text_may_be_nested_or_a_list_of_paragraphs(tmp_path: Path) -> None:
    meta = [{"text": "nested", "id": "n"}, {"text": None, "id": "m"}, None]
    path = _write(tmp_path / "a.parquet", meta=meta, **{"a.b": ["flat", "c", "d"]})
    nested = Source(kind="parquet", paths=[path], text_key="meta.text", id_key="meta.id")
    (part,) = _read(nested, 10**6)
    assert part == [
        Document("parquet/a.parquet:n", "nested", "parquet"),
        Rejected(f"{path}:1", "'meta.text' is null, expected a text"),
        Rejected(f"{path}:2", "no text under 'meta.text'; it has meta"),
    ]
    (flat,) = _read(Source(kind="parquet", paths=[path], text_key="a.b"), 10**6)
    assert [item.text for item in flat if isinstance(item, Document)] == ["flat", "c", "d"]
    path = _write(tmp_path / "b.parquet", text=[["One.", "Two."], ["One.", None], []])
    (part,) = _read(Source(kind="parquet", paths=[path]), 10**6)
    assert [getattr(item, "text", None) for item in part] == ["One.\n\nTwo.", None, ""]


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


def test_null_constant_and_repeated_ids_give_documents_ids_of_their_own(tmp_path: Path) -> None:
    for own in ([None] * 60, ["x"] * 60, [0.0, float("nan")] * 30, [i % 7 for i in range(60)]):
        path = _write(tmp_path / "a.parquet", id=own, text=[f"text {i}" for i in range(60)])
        for chunk_bytes in (1, 10**6):
            found = [i for p in _read(Source(kind="parquet", paths=[path]), chunk_bytes) for i in p]
            keys = [item.id for item in found if isinstance(item, Document)]
            assert len(keys) == 60
            assert len(set(keys)) >= 20 if chunk_bytes == 1 else len(set(keys)) == 60


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "dictionary"])
def test_texts_of_every_arrow_type(tmp_path: Path, kind: str) -> None:
    texts = ["eins", "zwei ü", "eins", "drei"]
    values = {
        "string": pa.array(texts),
        "large_string": pa.array(texts, pa.large_string()),
        "binary": pa.array([text.encode() for text in texts]),
        "dictionary": pa.array(texts).dictionary_encode(),
    }
    path = _write(tmp_path / "a.parquet", text=values[kind])
    (part,) = _read(Source(kind="parquet", paths=[path]))
    assert [item.text for item in part] == texts  # type: ignore[union-attr]


@pytest.mark.parametrize("as_binary", [True, False])
def test_a_text_that_is_not_utf8_is_one_rejected_record(tmp_path: Path, as_binary: bool) -> None:
    values = [f"text {i}".encode() for i in range(50)]
    values[17] = b"caf\xe9"
    array = pa.array(values, pa.binary())
    if not as_binary:
        array = pa.Array.from_buffers(pa.string(), len(array), array.buffers())
    path = _write(tmp_path / "a.parquet", text=array)
    found = [item for part in _read(Source(kind="parquet", paths=[path])) for item in part]
    assert len(found) == 50
    (rejected,) = [item for item in found if isinstance(item, Rejected)]
    assert rejected.where == f"{path}:17"
    assert "0xe9" in rejected.reason
