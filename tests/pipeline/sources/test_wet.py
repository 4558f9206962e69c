import io
from pathlib import Path

import pytest
from warcio.warcwriter import WARCWriter

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import Item, plan, read
from pipeline.sources.records import Document, Rejected

TEXTS = [f"Page number {i} says Grüße.\n\nIt has two paragraphs." for i in range(20)]


def _warc(texts: list[bytes], kind: str = "conversion", gzipped: bool = True) -> bytes:
    """As Common Crawl writes it: a record of the crawl first, then one a page, each a member."""
    file = io.BytesIO()
    writer = WARCWriter(file, gzip=gzipped)
    writer.write_record(writer.create_warcinfo_record("x.warc.wet.gz", {"software": "test"}))
    for number, text in enumerate(texts):
        headers = {"WARC-Record-ID": f"<urn:uuid:{number:08}>"}
        record = writer.create_warc_record(
            f"http://a.example/{number}",
            kind,
            payload=io.BytesIO(text),
            warc_content_type="text/plain",
            warc_headers_dict=headers,
        )
        writer.write_record(record)
    return file.getvalue()


def _read(path: Path) -> list[Item]:
    source = Source(kind="wet", name="cc", paths=[str(path)])
    return [i for c in plan([source], 100) for file in c.files for i in read(source, file)]


@pytest.mark.parametrize("gzipped", [True, False])
def test_texts_of_pages(tmp_path: Path, gzipped: bool) -> None:
    path = tmp_path / "CC-0.warc.wet.gz"
    path.write_bytes(_warc([t.encode() for t in TEXTS], gzipped=gzipped))
    assert _read(path) == [
        Document(f"cc/CC-0.warc.wet.gz:{i:08}", text, "cc") for i, text in enumerate(TEXTS)
    ]


def test_segments_of_one_name(tmp_path: Path) -> None:
    for segment in ("1", "2"):
        (tmp_path / segment / "wet").mkdir(parents=True)
        content = _warc([f"Text of segment {segment}.".encode()])
        (tmp_path / segment / "wet/CC-0.warc.wet.gz").write_bytes(content)
    assert [item.id for item in _read(tmp_path)] == [  # type: ignore[union-attr]
        "cc/1/wet/CC-0.warc.wet.gz:00000000",
        "cc/2/wet/CC-0.warc.wet.gz:00000000",
    ]


def test_a_text_that_is_not_utf8_is_rejected_alone(tmp_path: Path) -> None:
    (tmp_path / "a.wet").write_bytes(_warc([b"one", b"caf\xe9", b"two"]))
    found = _read(tmp_path / "a.wet")
    assert [type(item) for item in found] == [Document, Rejected, Document]
    assert found[1].where == f"{tmp_path / 'a.wet'}:3"  # type: ignore[union-attr]


@pytest.mark.parametrize("gzipped", [True, False])
def test_cut_off_files_and_pages_are_told(tmp_path: Path, gzipped: bool) -> None:
    content = _warc([t.encode() * 50 for t in TEXTS], gzipped=gzipped)
    (tmp_path / "a.wet").write_bytes(content[:-300])
    with pytest.raises(BadFile, match=r"a\.wet: cut off"):
        _read(tmp_path / "a.wet")
    (tmp_path / "a.wet").write_bytes(_warc([b"<html>"], "resource"))
    with pytest.raises(BadFile, match=r"2 records, and none of type `conversion`"):
        _read(tmp_path / "a.wet")
    (tmp_path / "a.wet").write_bytes(b"something else\n" * 20)
    with pytest.raises(BadFile, match=r"a\.wet"):
        _read(tmp_path / "a.wet")


@pytest.mark.parametrize("gzipped", [True, False])
def test_the_whole_records_of_a_small_file_that_is_cut_off_are_read(
    tmp_path: Path, gzipped: bool
) -> None:
    content = _warc([t.encode() for t in TEXTS[:2]], gzipped=gzipped)
    (tmp_path / "a.wet").write_bytes(content[:-20])
    source = Source(kind="wet", name="cc", paths=[str(tmp_path / "a.wet")], bad_files="skip")
    (chunk,) = plan([source], 100)
    document, rejected = read(source, chunk.files[0])
    assert document == Document("cc/a.wet:00000000", TEXTS[0], "cc")
    assert isinstance(rejected, Rejected)
