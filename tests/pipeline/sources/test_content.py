import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import Item, plan, read
from pipeline.sources.files import blocks, lines, stream
from pipeline.sources.records import Document

PACK = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstandard.compress, "xz": lzma.compress}
LINES = b"".join(b'{"text": "text number %d"}\n' % i for i in range(50))


def _read(path: Path, **settings: str) -> list[Item]:
    source = Source(paths=[str(path)], **{"kind": "jsonl", **settings})  # type: ignore[arg-type]
    return [item for c in plan([source], 100) for file in c.files for item in read(source, file)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt", "a.gzip", "a"])
@pytest.mark.parametrize("kind", ["plain", *PACK])
def test_the_first_bytes_decide_whatever_the_name_says(
    tmp_path: Path, kind: str, name: str
) -> None:
    (tmp_path / name).write_bytes(PACK.get(kind, bytes)(LINES))
    found = _read(tmp_path / name)
    assert [d.text for d in found if isinstance(d, Document)] == [
        f"text number {i}" for i in range(50)
    ]


def test_zstd_with_a_large_window(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = packer.compress(LINES) + packer.flush()
    with pytest.raises(zstandard.ZstdError):
        zstandard.ZstdDecompressor().decompressobj().decompress(content)
    (tmp_path / "a.zst").write_bytes(content)
    assert b"".join(blocks(str(tmp_path / "a.zst"))) == LINES


def test_gzip_members_and_zeros_between_and_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sources.files._BLOCK_BYTES", 256)  # so zeros fill blocks
    (tmp_path / "a.gz").write_bytes(
        gzip.compress(LINES) + bytes(1000) + gzip.compress(LINES) + bytes(3000)
    )
    assert b"".join(blocks(str(tmp_path / "a.gz"))) == LINES * 2


@pytest.mark.parametrize("suffix", PACK)
def test_cut_off_and_damaged_are_told_apart(tmp_path: Path, suffix: str) -> None:
    content = bytearray(PACK[suffix](LINES * 50))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content[:-9])
    with pytest.raises(BadFile, match=rf"a\.{suffix}: cut off.*; fetch it again"):
        _read(path)
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(b ^ 255 for b in content[middle : middle + 8])
    path.write_bytes(content)
    with pytest.raises(BadFile, match=rf"a\.{suffix}: damaged.*; fetch it again"):
        _read(path)


def _parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), file)
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jsonl", LINES)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a.jsonl")
        member.size = len(LINES)
        archive.addfile(member, io.BytesIO(LINES))
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
HTML = b"\n<!-- cached -->\n<!DOCTYPE HTML>\n<html><title>404 Not Found</title></html>\n"
STORE = b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>'


@pytest.mark.parametrize("kind", ["jsonl", "text", "parquet", "fasta", "wet", "mediawiki"])
@pytest.mark.parametrize("name", ["a.txt", "a.gz"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (LFS, "Git LFS pointer.*git lfs pull"),
        (HTML, "HTML page"),
        (STORE, r"error message \(NoSuchKey\)"),
        (_zip(), "ZIP archive"),
        (_tar(), "tar archive"),
        (gzip.compress(_tar()), "tar archive"),
        (gzip.compress(gzip.compress(LINES)), "compressed twice"),
    ],
    ids=["lfs", "html", "store", "zip", "tar", "tar.gz", "twice"],  # archives hold the time
)
def test_what_is_no_text_is_named(
    tmp_path: Path, kind: str, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    if kind == "parquet" and content[0] == 0x1F:
        says = "expected Parquet"
    with pytest.raises(BadFile, match=f"{name}: .*{says}"):
        _read(tmp_path / name, kind=kind)


@pytest.mark.parametrize("kind", ["jsonl", "text", "fasta", "wikiextractor"])
def test_binary_data_is_named(tmp_path: Path, kind: str) -> None:
    for content in (b"\x00\x01\x02\x03" * 50, "Text without a mark.".encode("utf-16-le")):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(BadFile, match=r"a: binary data, or UTF-16 .*`encoding: utf-16-le`"):
            _read(tmp_path / "a", kind=kind)


def test_parquet_and_json_lines_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(_parquet())
    with pytest.raises(BadFile, match=r"Parquet; `kind: parquet` reads it"):
        _read(tmp_path / "a")
    (tmp_path / "a").write_bytes(LINES)
    with pytest.raises(BadFile, match=r"begins with .*expected Parquet"):
        _read(tmp_path / "a", kind="parquet")


def test_html_may_be_read_as_text_where_it_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(HTML)
    (document,) = _read(tmp_path / "a.html", kind="text")
    assert document.text == HTML.decode()  # type: ignore[union-attr]


def test_lines_and_streams_are_the_content(tmp_path: Path) -> None:
    content = b"x" * 3_000_000 + b"\n\n" + b"y" * 1_500_000 + b"\nlast"
    (tmp_path / "a").write_bytes(gzip.compress(content))
    path = str(tmp_path / "a")
    assert list(lines(path)) == content.splitlines(keepends=True)
    assert stream(blocks(path)).read() == content
    assert stream(blocks(path)).readline() == content.splitlines(keepends=True)[0]
