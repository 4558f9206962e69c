import bz2
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from pipeline.config import Source
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import Item, plan, read
from pipeline.sources.records import Document, Skipped

REAL = Path(__file__).parents[4] / "shared/data/wikipedia-xml"
HEADER = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo></siteinfo>\n'


def _page(number: int, namespace: int = 0, text: str = "") -> str:
    text = text or f"Article number {number} has ''some'' text & a [[link]]."
    return (
        f"<page><title>T{number}</title><ns>{namespace}</ns><id>{number}</id>"
        f"<revision><id>9</id><text>{escape(text)}</text></revision></page>\n"
    )


def _dump(folder: Path, streams: list[str]) -> tuple[Path, Path]:
    """A multistream dump and its index, laid out as Wikimedia does."""
    parts = [HEADER, *streams, "</mediawiki>"]
    packed = [bz2.compress(part.encode()) for part in parts]
    path = folder / "xxwiki-latest-pages-articles-multistream.xml.bz2"
    path.write_bytes(b"".join(packed))
    index, offset = [], len(packed[0])
    for stream, content in zip(streams, packed[1:], strict=False):
        index += [f"{offset}:{n}:T{n}:x\n" for n in range(stream.count("<page>"))]
        offset += len(content)
    index_path = folder / "xxwiki-latest-pages-articles-multistream-index.txt.bz2"
    index_path.write_bytes(bz2.compress("".join(index).encode()))
    return path, index_path


def _items(source: Source, chunk_bytes: int) -> list[Item]:
    return [i for c in plan([source], chunk_bytes) for f in c.files for i in read(source, f)]


STREAMS = ["".join(_page(10 * s + n) for n in range(10)) for s in range(7)]
STREAMS[3] += _page(900, 1) + _page(901, 0, "#REDIRECT [[T1]]")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    _dump(tmp_path, STREAMS)
    return Source(kind="mediawiki", name="w", paths=[f"{tmp_path}/*.bz2"])


def test_parts_by_the_index_are_the_whole_dump(source: Source, tmp_path: Path) -> None:
    assert len(plan([source], 1)) == 7
    whole = _items(source, 10**9)
    assert _items(source, 1) == _items(source, 700) == whole
    (tmp_path / "xxwiki-latest-pages-articles-multistream-index.txt.bz2").unlink()
    assert len(plan([source], 300)) == 1
    assert _items(source, 300) == whole
    documents = [item for item in whole if isinstance(item, Document)]
    assert [d.id.split(":")[1] for d in documents] == [str(n) for n in range(70)]
    assert documents[5].text == "T5\n\nArticle number 5 has some text & a link."
    assert Counter(i.reason for i in whole if isinstance(i, Skipped)) == {
        "redirect": 1,
        "not_article": 1,
    }


def test_a_dump_that_is_cut_off_is_told_with_and_without_index(
    source: Source, tmp_path: Path
) -> None:
    path = tmp_path / "xxwiki-latest-pages-articles-multistream.xml.bz2"
    content = path.read_bytes()
    last_stream = len(bz2.compress(b"</mediawiki>"))
    for cut in (content[: -last_stream - 5], content[:-last_stream]):
        path.write_bytes(cut)
        with pytest.raises(BadFile, match=r"damaged|cut off"):
            _items(source, 300)
        with pytest.raises(BadFile, match=r"damaged|cut off"):
            _items(source, 10**9)
    path.write_bytes(content[:500])
    with pytest.raises(PipelineError, match="its index names a stream"):
        _items(source, 300)
    path.write_bytes(content.replace(content[1000:1010], b"0123456789"))
    with pytest.raises(BadFile, match="damaged"):
        _items(source, 300)


@pytest.mark.skipif(not REAL.exists(), reason="needs shared/data/wikipedia-xml beside the checkout")
def test_the_real_sample_gives_prose() -> None:
    items = _items(Source(kind="mediawiki", name="w", paths=[f"{REAL}/*.bz2"]), 10**9)
    documents = [item for item in items if isinstance(item, Document)]
    assert len(items) == 211
    assert len(documents) == 111
    text = "\n".join(document.text for document in documents)
    assert len(text) > 2_000_000
    assert "Anarchism is a political philosophy that advocates self-governed societies" in text
    for markup in ("[[", "]]", "{{", "<ref", "'''", "==", "&nbsp;", "{|"):
        assert text.count(markup) <= 5, markup  # a few articles write about markup
