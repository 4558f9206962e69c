import bz2
import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.sources import plan, read
from pipeline.sources.records import Document, Rejected

PACK = {".jsonl": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}


def _read(source: Source, chunk_bytes: int = 1 << 30) -> list[Document | Rejected]:
    return [
        item
        for chunk in plan([source], chunk_bytes)
        for file in chunk.files
        for item in read(source, file)
    ]


@pytest.mark.parametrize("suffix", PACK)
def test_jsonl_in_every_compression(tmp_path: Path, suffix: str) -> None:
    texts = [f"Zeile {i} \u2028 ü" for i in range(500)]
    lines = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(PACK[suffix](lines.encode()))
    found = _read(Source(kind="jsonl", paths=[str(path)]))
    assert [item.text for item in found if isinstance(item, Document)] == texts
    assert found[3].id == f"jsonl/a{suffix}:3"  # type: ignore[union-attr]


@pytest.mark.parametrize("suffix", PACK)
def test_a_source_that_is_cut_off_is_an_error_naming_it(tmp_path: Path, suffix: str) -> None:
    lines = "".join(json.dumps({"text": "ab" * i}) + "\n" for i in range(300))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(PACK[suffix](lines.encode())[:-9])
    with pytest.raises(PipelineError, match=rf"a{suffix}.*(cut off|damaged)"):
        _read(Source(kind="jsonl", paths=[str(path)]))


@pytest.mark.parametrize("suffix", PACK)
def test_a_bad_file_may_be_passed_over_and_is_told_of(tmp_path: Path, suffix: str) -> None:
    lines = "".join(json.dumps({"text": f"{i} " * 99}) + "\n" for i in range(30_000))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(PACK[suffix](lines.encode())[:-900])
    *found, last = _read(Source(kind="jsonl", paths=[str(path)], bad_files="skip"))
    assert 10_000 < len(found) < 30_000
    assert [d.text for d in found] == [f"{i} " * 99 for i in range(len(found))]  # type: ignore[union-attr]
    assert isinstance(last, Rejected)
    assert last.where == str(path)
    assert "bad file" in last.reason


def test_invalid_utf8_is_one_bad_record(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\nb\xff\nalso good\n")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n{"text": "\xff"}\n{"text": "also"}\n')
    for kind, name in (("text", "a.txt"), ("jsonl", "a.jsonl")):
        source = Source(kind=kind, paths=[str(tmp_path / name)], documents="line")  # type: ignore[arg-type]
        found = _read(source)
        assert [type(item) for item in found] == [Document, Rejected, Document]
        assert found[1].where == f"{tmp_path / name}:2"  # type: ignore[union-attr]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_two_compressed_streams_are_one_file(tmp_path: Path, suffix: str) -> None:
    stream = PACK[suffix](b'{"text": "x"}\n')
    padding = bytes(9) if suffix == ".gz" else b""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(stream * 2 + padding)
    assert len(_read(Source(kind="jsonl", paths=[str(path)]))) == 2


def test_one_bad_record_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{oops\n[1]\n{"body": 1}\n{"text": "last"}')
    found = _read(Source(kind="jsonl", paths=[str(path)]))
    assert [type(item) for item in found] == [Document, Rejected, Rejected, Rejected, Document]
    assert [item.where for item in found if isinstance(item, Rejected)] == [
        f"{path}:{line}" for line in (2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("documents", "texts"),
    [
        ("file", ["one\ntwo\n\n\nthree\n"]),
        ("line", ["one\n", "two\n", "three\n"]),
        ("blank-lines", ["one\ntwo\n", "three\n"]),
    ],
)
def test_text_documents(tmp_path: Path, documents: str, texts: list[str]) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\n")
    source = Source(
        kind="text",
        paths=[str(tmp_path / "a.txt")],
        documents=documents,  # type: ignore[arg-type]
    )
    assert [item.text for item in _read(source) if isinstance(item, Document)] == texts


@given(
    lines=st.lists(st.sampled_from(["", " ", "one", "two words", "ü" * 30]), min_size=1),
    chunk_bytes=st.integers(1, 60),
    documents=st.sampled_from(["line", "blank-lines"]),
)
def test_a_large_file_in_parts_gives_the_documents_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], chunk_bytes: int, documents: str
) -> None:
    path = tmp_path_factory.mktemp("parts") / "a.txt"
    path.write_bytes("\n".join(lines).encode())
    source = Source(kind="text", paths=[str(path)], documents=documents)  # type: ignore[arg-type]
    whole, parts = _read(source), _read(source, chunk_bytes)
    assert [item.text for item in parts] == [item.text for item in whole]  # type: ignore[union-attr]
    assert len({item.id for item in parts}) == len(parts)  # type: ignore[union-attr]


def test_json_lines_in_parts_are_even_and_name_where_a_bad_one_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [json.dumps({"text": f"text {i} " * (i % 17)}) for i in range(500)]
    records[300] = "{oops"
    path.write_text("".join(record + "\n" for record in records))
    source = Source(kind="jsonl", paths=[str(path)])
    files = [file for chunk in plan([source], 5000) for file in chunk.files]
    size = path.stat().st_size
    assert len(files) == -(-size // 5000)
    assert sum(file.bytes for file in files) == size
    assert max(file.bytes for file in files) < 5000 + 200
    found = _read(source, 5000)
    good = [json.loads(record)["text"] for record in records if record != "{oops"]
    assert [item.text for item in found if isinstance(item, Document)] == good
    (bad,) = (item for item in found if isinstance(item, Rejected))
    start, line = map(int, bad.where.removeprefix(f"{path}@").split(":"))
    assert path.read_bytes()[start:].split(b"\n")[line - 1] == b"{oops"
