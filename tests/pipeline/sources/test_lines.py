import bz2
import gzip
import json
import re
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


SENTENCE = "Größe und Maß, née Müller"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("documents", ["file", "line"])
@pytest.mark.parametrize("chunk_bytes", [100, 10**6])
def test_text_with_a_byte_order_mark_is_read(
    tmp_path: Path, encoding: str, documents: str, chunk_bytes: int
) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    text = "".join(f"{SENTENCE} {i}\r\n" for i in range(40))
    (tmp_path / "a.txt").write_bytes((mark + text).encode(encoding))
    source = Source(kind="text", paths=[str(tmp_path / "a.txt")], documents=documents)  # type: ignore[arg-type]
    found = _read(source, chunk_bytes)
    assert "".join(item.text for item in found) == text  # type: ignore[union-attr]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "shift_jis"])
@pytest.mark.parametrize("kind", ["text", "jsonl"])
@pytest.mark.parametrize("chunk_bytes", [300, 10**6])
def test_another_encoding_is_read_when_the_source_names_it(
    tmp_path: Path, encoding: str, kind: str, chunk_bytes: int
) -> None:
    sentence = "日本語の文" if encoding == "shift_jis" else SENTENCE
    texts = [f"{sentence} {i}" for i in range(40)]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    content = "\n".join(texts if kind == "text" else lines)
    (tmp_path / "a").write_bytes(content.encode(encoding))
    source = Source(
        kind=kind,  # type: ignore[arg-type]
        paths=[str(tmp_path / "a")],
        documents="line",
        encoding=encoding,
    )
    found = _read(source, chunk_bytes)
    assert [item.text.strip() for item in found] == texts  # type: ignore[union-attr]


WIDE = [f"Ċ{chr(0x0A00 + i)}\U0001f600SEQ{i}" for i in range(40)]  # 0x0A is in their bytes
WIDE_OBJECTS = [json.dumps({"text": text}, ensure_ascii=False) for text in WIDE]
WIDE_CONTENT = {
    "line": ("text", "\n".join(WIDE)),
    "blank-lines": ("text", "\n\n".join(WIDE)),
    "lines of JSON": ("jsonl", "\n".join(WIDE_OBJECTS)),
    "an array": ("jsonl", f"[{','.join(WIDE_OBJECTS)}]"),
    "<doc>": ("wikiextractor", "\n".join(f'<doc title="">\n{text}\n</doc>' for text in WIDE)),
    "FASTA": ("fasta", "\n".join(f">{i}\n{text}" for i, text in enumerate(WIDE))),
}


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("form", WIDE_CONTENT)
def test_every_kind_of_text_is_read_in_the_utf16_and_utf32_that_its_source_names(
    tmp_path: Path, encoding: str, form: str
) -> None:
    kind, content = WIDE_CONTENT[form]
    source = Source(
        kind=kind,  # type: ignore[arg-type]
        paths=[str(tmp_path / "a")],
        documents=form if kind == "text" else "file",  # type: ignore[arg-type]
        encoding=encoding,
    )
    assert not list(source.problems(""))
    for mark in ("", "\ufeff"):
        if not (mark and encoding in ("utf-16", "utf-32")):  # these codecs write one themselves
            (tmp_path / "a").write_bytes((mark + content).encode(encoding))
        for chunk_bytes in (301, 10**6):
            found = _read(source, chunk_bytes)
            assert [item.text.strip() for item in found] == WIDE  # type: ignore[union-attr]


@pytest.mark.parametrize("documents", ["file", "line"])
def test_an_encoding_with_another_line_feed_is_read_whole(tmp_path: Path, documents: str) -> None:
    text = "".join(f"{SENTENCE} {i}\n" for i in range(40))
    (tmp_path / "a").write_bytes(text.encode("cp037"))  # EBCDIC
    source = Source(
        kind="text",
        paths=[str(tmp_path / "a")],
        documents=documents,  # type: ignore[arg-type]
        encoding="cp037",
    )
    found = _read(source, 100)
    assert len(found) == (40 if documents == "line" else 1)
    assert "".join(item.text for item in found) == text  # type: ignore[union-attr]


def test_utf16_without_a_mark_is_told_with_the_encoding_that_it_has(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        (tmp_path / "a").write_bytes(SENTENCE.encode(encoding))
        with pytest.raises(PipelineError, match=f"`encoding: {encoding}`"):
            _read(Source(kind="text", paths=[str(tmp_path / "a")]))


def test_utf16_that_ends_within_a_character_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(SENTENCE.encode("utf-16")[:-1])
    with pytest.raises(PipelineError, match="a: cut off within a character") as told:
        _read(Source(kind="text", paths=[str(tmp_path / "a")]))
    assert "set `encoding`" not in str(told.value)


@pytest.mark.parametrize("kind", ["text", "jsonl"])
@pytest.mark.parametrize("documents", ["file", "line", "blank-lines"])
def test_a_file_of_another_encoding_is_refused_naming_line_byte_and_remedy(
    tmp_path: Path, kind: str, documents: str
) -> None:
    lines = [f"plain {i}" for i in range(5)] + [f"{SENTENCE} {i}" for i in range(40)]
    if kind == "jsonl":
        lines = [json.dumps({"text": line}, ensure_ascii=False) for line in lines]
    content = "\n".join(lines).encode("cp1252")
    (tmp_path / "a").write_bytes(content)
    source = Source(kind=kind, paths=[str(tmp_path / "a")], documents=documents)  # type: ignore[arg-type]
    with pytest.raises(PipelineError, match=r"a:15: not utf-8: byte .*set `encoding`") as raised:
        _read(source)
    at, value = re.findall(r"byte ([\d,]+) is 0x(\w\w)", str(raised.value))[0]
    at = int(at.replace(",", "")) - 1
    assert content[at] == int(value, 16) == ord("ö")
    assert content[:at].count(b"\n") == 14


def test_some_bad_lines_in_a_file_of_utf8_are_rejected_alone(tmp_path: Path) -> None:
    lines = [SENTENCE.encode("cp1252" if i % 3 == 2 else "utf-8") for i in range(90)]
    (tmp_path / "a.txt").write_bytes(b"\n".join(lines))
    source = Source(kind="text", paths=[str(tmp_path / "a.txt")], documents="line")
    found = _read(source)
    assert [type(item) for item in found] == [Document, Document, Rejected] * 30
    whole = Source(kind="text", paths=[str(tmp_path / "a.txt")])
    (rejected,) = _read(whole)
    assert rejected.where.endswith("a.txt:3")  # type: ignore[union-attr]


def test_a_file_that_ends_within_a_character_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("eins zwei dreiß".encode()[:-1])
    with pytest.raises(PipelineError, match=r"a\.txt:1: cut off within a character"):
        _read(Source(kind="text", paths=[str(tmp_path / "a.txt")]))


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


@pytest.mark.parametrize("documents", ["line", "blank-lines"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("chunk_bytes", [50, 10**6])
def test_carriage_returns_alone_end_lines(
    tmp_path: Path, documents: str, encoding: str, chunk_bytes: int
) -> None:
    texts = [f"{SENTENCE} {i}" for i in range(20)]
    between = "\r" if documents == "line" else "\r\r"
    (tmp_path / "a.txt").write_bytes(between.join(texts).encode(encoding))
    source = Source(
        kind="text",
        paths=[str(tmp_path / "a.txt")],
        documents=documents,  # type: ignore[arg-type]
        encoding=encoding,
    )
    found = _read(source, chunk_bytes)
    assert [item.text.strip() for item in found] == texts  # type: ignore[union-attr]


def test_a_carriage_return_within_lines_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\rstill one\ntwo\r\nthree")
    source = Source(kind="text", paths=[str(tmp_path / "a.txt")], documents="line")
    assert [item.text for item in _read(source)] == ["one\rstill one\n", "two\r\n", "three"]  # type: ignore[union-attr]


def test_a_block_with_a_line_that_cannot_be_decoded_is_rejected_as_a_whole(tmp_path: Path) -> None:
    blocks = [b"one\ntwo\n", b"three\nf\xffour\nf\xffive\nsix\n", b"seven\n", b"\xff\n", b"eight"]
    (tmp_path / "a.txt").write_bytes(b"\n".join(blocks))
    source = Source(kind="text", paths=[str(tmp_path / "a.txt")], documents="blank-lines")
    found = _read(source)
    assert [item.text for item in found if isinstance(item, Document)] == [
        *("one\ntwo\n", "seven\n", "eight")
    ]
    assert [item.where for item in found if isinstance(item, Rejected)] == [
        f"{tmp_path}/a.txt:{line}" for line in (5, 11)
    ]
