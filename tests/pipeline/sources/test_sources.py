import ast
import bz2
import gzip
import json
from pathlib import Path

import pytest
import zstandard

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.sources import plan, read
from pipeline.sources.docstrings import docstrings, installed_files
from pipeline.sources.records import Document, Rejected

PACK = {".jsonl": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}


def _read(source: Source) -> list[Document | Rejected]:
    return [
        item for chunk in plan([source], 100) for file in chunk.files for item in read(source, file)
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
    path.write_bytes(PACK[suffix](lines.encode())[:-9])
    *found, last = _read(Source(kind="jsonl", paths=[str(path)], bad_files="skip"))
    assert len(found) < 30_000
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


def test_two_zstd_frames_are_one_file(tmp_path: Path) -> None:
    frame = zstandard.compress(b'{"text": "x"}\n')
    (tmp_path / "a.zst").write_bytes(frame * 2)
    assert len(_read(Source(kind="jsonl", paths=[str(tmp_path / "a.zst")]))) == 2


def test_one_bad_record_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{oops\n[1]\n{"body": 1}\n{"text": "last"}')
    found = _read(Source(kind="jsonl", paths=[str(path)]))
    assert [type(item) for item in found] == [Document, Rejected, Rejected, Rejected, Document]
    assert [item.where for item in found if isinstance(item, Rejected)] == [
        f"{path}:{line}" for line in (2, 3, 4)
    ]


def test_missing_files_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no file matches"):
        plan([Source(kind="text", paths=[str(tmp_path / "*.txt")])], 100)


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


def test_docstrings_are_those_that_ast_finds() -> None:
    raw = Path(ast.__file__).read_bytes()
    found = dict(docstrings(raw, 1))
    expected = [
        text
        for node in ast.walk(ast.parse(raw))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (text := ast.get_docstring(node, clean=False))
    ]
    assert sorted(found.values()) == sorted(expected)
    assert found["NodeVisitor.visit"] == ast.NodeVisitor.visit.__doc__
    assert min(map(len, dict(docstrings(raw, 200)).values())) >= 200


def test_installed_files_are_sorted_and_leave_us_out() -> None:
    names = [name for _, name, _ in installed_files()]
    assert names == sorted(set(names))
    assert {"python/ast.py", "numpy/__init__.py"} <= set(names)
    assert not any(name.startswith(("pipeline/", "pretrain/", "finetune/")) for name in names)
