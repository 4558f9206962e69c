"""Decoding: what Python decodes, by lines; errors by line and byte."""

import bz2
import codecs
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.text import read_lines

LINES = st.lists(st.text(st.characters(exclude_characters="\x00\r\n\ufeff", codec="utf-8")))


@settings(deadline=None)  # writes files
@given(LINES, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "be"]), st.booleans())
def test_any_encoding_with_its_mark_and_packed_or_not(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], encoding: str, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("text") / "named.gz"  # the name doesn't decide
    content = "".join(f"{line}\r\n" for line in lines)
    raw = content.encode("utf-16-be" if encoding == "be" else encoding)
    raw = codecs.BOM_UTF16_BE + raw if encoding == "be" else raw
    path.write_bytes(gzip.compress(raw) if packed else raw)
    assert "".join(read_lines(path)) == content


def test_lines_end_as_the_file_has_it(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("a\x0bb\u2028c\x85d\rd\ne".encode())
    assert list(read_lines(path)) == ["a\x0bb\u2028c\x85d\rd\n", "e"]
    path.write_bytes(b"a\rb\r")
    assert [line.strip() for line in read_lines(path)] == ["a", "b"]
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert list(read_lines(path)) == ["a\n", "b\n"]
    path.write_bytes(b"")
    assert list(read_lines(path)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\ncaf\xc3\xa9 I don\x92t\n", r"line 2, byte 12: found 0x92 after 'café I don', exp"),
        (b"a\nb\ncaf\xc3", r"line 3, byte 4: found 0xc3 after 'caf', expected UTF-8"),
        ("a\nb".encode("utf-16")[:-1], r"line 2: not UTF-16 from byte 7 .*truncated data"),
        ("text\tlabel\n".encode("utf-16-le"), r"line 1: found 1[01] zero bytes .*byte order mark"),
        ("text\tlabel\n".encode("utf-16-be"), r"line 1: found 1[01] zero bytes .*byte order mark"),
        (gzip.compress(b"abc" * 99, mtime=0)[:-9], r"Compressed file ended before"),
        (b"\x1f\x8b" + b"x" * 30, r"Unknown compression method"),
        (bz2.compress(b"abc"), r"line 1, byte \d+: found 0x"),
    ],
)
def test_what_is_no_text_is_named_by_line_and_byte(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(FinetuneError, match=message) as error:
        list(read_lines(path))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_single_lines_in_the_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("café\n".encode() + "café\n".encode("latin-1"))
    assert list(read_lines(path, otherwise="latin-1")) == ["café\n", "café\n"]


def test_standard_input_and_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n")))
    lines = read_lines(None)
    assert next(lines) == "a\n"
    with pytest.raises(FinetuneError, match="standard input, line 2, byte 1: found 0xff"):
        next(lines)
    for path, message in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(FinetuneError, match=message):
            list(read_lines(path))
