import bz2
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from pipeline.config import Source
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import Item, plan, read
from pipeline.sources.records import Document, Rejected, Removed, Skipped

REAL = Path(__file__).parents[4] / "shared/data/wikipedia-xml"
HEADER = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo></siteinfo>\n'


def _page(number: int, namespace: int = 0, text: str = "") -> str:
    text = text or f"Article number {number} has ''some'' text & a [[link]]."
    return (
        f"<page><title>T{number}</title><ns>{namespace}</ns><id>{number}</id>"
        f"<revision><id>9</id><text>{escape(text)}</text></revision></page>\n"
    )


def _dump(folder: Path, streams: list[str], header: str = HEADER) -> tuple[Path, Path]:
    """A multistream dump and its index, laid out as Wikimedia does."""
    parts = [header, *streams, "</mediawiki>"]
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


def _revision(text: str, more: str = "", attributes: str = "") -> str:
    return f"<revision><id>9</id>{more}<text{attributes}>{escape(text)}</text></revision>"


def _xml(version: str, *pages: str, siteinfo: str = "") -> str:
    namespace = f"http://www.mediawiki.org/xml/export-{version}/"
    head = f'<mediawiki xmlns="{namespace}" version="{version}" xml:lang="de">'
    return f"{head}{siteinfo}{''.join(f'<page>{page}</page>' for page in pages)}</mediawiki>"


GERMAN = (
    "<siteinfo><namespaces><namespace key='0' /><namespace key='2'>Benutzer</namespace>"
    "<namespace key='6'>Datei</namespace><namespace key='14'>Kategorie</namespace>"
    "</namespaces></siteinfo>"
)
STUB = " bytes='90'"
MARKUP = "[[Datei:B.jpg|mini|hochkant|Eine Bank]]Die Bank [[CSI: Wien]].\n[[Kategorie:B]][[en:B]]"


def _found(folder: Path, xml: str) -> dict[str, str]:
    """Text or reason by the id or position of each page of a dump."""
    path = folder / "x.xml"
    path.write_text(xml)
    items = _items(Source(kind="mediawiki", name="w", paths=[str(path)], title=False), 10**9)
    return {
        item.id.split(":")[1] if isinstance(item, Document) else f"{position}": item.text
        if isinstance(item, Document)
        else str(item[1])
        for position, item in enumerate(items)
    }


@pytest.mark.parametrize("version", ["0.3", "0.4", "0.5", "0.6", "0.8", "0.10", "0.11"])
def test_a_dump_of_any_schema_gives_its_articles(tmp_path: Path, version: str) -> None:
    number = int(version.split(".")[1])
    model = "<model>wikitext</model><format>text/x-wiki</format>" if number >= 8 else ""

    def page(title: str, namespace: int, of: int, redirect: str, text: str) -> str:
        stated = f"<ns>{namespace}</ns>" if number >= 6 else ""
        marked = redirect if number >= 4 else ""
        return f"<title>{title}</title>{stated}<id>{of}</id>{marked}{_revision(text, model)}"

    xml = _xml(
        version,
        page("Bank", 0, 7, "", MARKUP),
        page("Benutzer:Wer", 2, 8, "", "Ich bin kein Artikel."),
        page("Sitz", 0, 9, "<redirect title='Bank' />", "#WEITERLEITUNG [[Bank]]"),
        page("Sitz: das Buch", 0, 10, "", "Ein Buch."),
        siteinfo=GERMAN,
    )
    assert _found(tmp_path, xml) == {
        "7": "Die Bank CSI: Wien.",
        "1": "not_article",
        "2": "redirect",
        "10": "Ein Buch.",
    }


def test_of_a_full_history_the_newest_revision_counts(tmp_path: Path) -> None:
    def revisions(*days: int) -> str:
        return "".join(
            _revision(f"Text of day {day}.", f"<timestamp>2020-01-{day:02}T00:00:00Z</timestamp>")
            for day in days
        )

    stamped = [(1, 2, 3), (3, 2, 1), (2, 3, 1)]
    pages = [
        f"<title>A</title><ns>0</ns><id>{i}</id>{revisions(*d)}" for i, d in enumerate(stamped)
    ]
    unstamped = "".join(_revision(f"Version {i}.") for i in range(3))
    pages += [f"<title>A</title><ns>0</ns><id>9</id>{unstamped}"]
    assert _found(tmp_path, _xml("0.10", *pages)) == {
        **{str(i): "Text of day 3." for i in range(3)},
        "9": "Version 2.",
    }


def test_scripts_and_data_are_no_articles(tmp_path: Path) -> None:
    pages = [
        f"<title>A</title><ns>0</ns><id>{i}</id>{_revision('var text;', f'<model>{model}</model>')}"
        for i, model in enumerate(["javascript", "css", "Scribunto", "wikibase-item", "wikitext"])
    ]
    assert _found(tmp_path, _xml("0.11", *pages)) == {
        **dict.fromkeys("0123", "not_article"),
        "4": "var text;",
    }


def test_other_slots_of_a_revision_are_not_its_text(tmp_path: Path) -> None:
    slot = "<content><role>data</role><model>json</model><text>{}</text></content>"
    page = f"<title>A</title><ns>0</ns><id>1</id>{_revision('Main.', slot)}"
    assert _found(tmp_path, _xml("0.11", page)) == {"1": "Main."}


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("<feed><doc><title>A</title></doc></feed>", "<feed>, expected a <mediawiki>"),
        (_xml("0.10").replace("</med", "<logitem /></med"), "<logitem>, expected"),
        (_xml("0.10", f"<title>A</title>{_revision('', '', STUB)}"), "'A' has 90 bytes"),
        ("plain text", "no MediaWiki dump"),
    ],
)
def test_what_is_no_dump_of_articles_is_told(tmp_path: Path, xml: str, words: str) -> None:
    with pytest.raises(BadFile, match=words) as error:
        _found(tmp_path, xml)
    assert str(tmp_path / "x.xml") in str(error.value)


def test_a_hidden_text_is_empty_and_no_stub(tmp_path: Path) -> None:
    hidden = _revision("", "", f"{STUB} deleted='deleted'")
    page = f"<title>A</title><id>1</id>{hidden}"
    assert _found(tmp_path, _xml("0.10", page)) == {"1": ""}


def test_pages_have_ids_of_their_own_however_the_dump_is_cut(tmp_path: Path) -> None:
    def page(title: str, number: str) -> str:
        return f"<page><title>{title}</title><ns>0</ns>{number}{_revision('Text.')}</page>"

    streams = [
        "".join(page(f"No{s}{n}", "" if n % 2 else "<id></id>") for n in range(4))
        + "".join(page(f"Same{s}{n}", f"<id>a{s}</id>") for n in range(3))
        + "".join(page("", "") for _ in range(2))
        for s in range(4)
    ]
    _dump(tmp_path, streams)
    source = Source(kind="mediawiki", name="w", paths=[f"{tmp_path}/*.bz2"])
    cut = {}
    for chunk_bytes in (1, 700, 10**9):
        ids = [item.id for item in _items(source, chunk_bytes) if isinstance(item, Document)]
        assert len(set(ids)) == len(ids) == 36
        cut[chunk_bytes] = {i.partition(":")[2] for i in ids}
    stable = {f"No{s}{n}" for s in range(4) for n in range(4)} | {"a0", "a1", "a2", "a3"}
    assert stable <= cut[1] & cut[700] & cut[10**9]


@pytest.mark.parametrize("stated", ["", "main", "1.5", "²"])
def test_a_namespace_that_is_no_number_is_that_pages_fault(tmp_path: Path, stated: str) -> None:
    pages = [
        f"<title>T{n}</title><ns>{stated if n == 1 else 0}</ns><id>{n}</id>{_revision('Text.')}"
        for n in range(3)
    ]
    (tmp_path / "x.xml").write_text(_xml("0.10", *pages, siteinfo=GERMAN.replace("'2'", "'--2'")))
    source = Source(kind="mediawiki", name="w", paths=[f"{tmp_path}/x.xml"])
    found = _items(source, 10**9)
    assert [type(item) for item in found] == [Document, Rejected, Document]
    assert found[1] == Rejected(
        f"{tmp_path}/x.xml:T1", f"its namespace (<ns>) is {stated!r}, expected a number"
    )


def test_parts_know_the_names_in_the_header_of_the_dump(tmp_path: Path) -> None:
    text = "[[Datei:B|mini|Bild]]Prosa.[[Kategorie:B]]"
    streams = ["".join(_page(10 * s + n, text=text) for n in range(10)) for s in range(4)]
    header = HEADER.replace("<siteinfo></siteinfo>", GERMAN)
    _dump(tmp_path, streams, header)
    source = Source(kind="mediawiki", name="w", paths=[f"{tmp_path}/*.bz2"], title=False)
    assert len(plan([source], 1)) == 4
    assert {item.text for item in _items(source, 1) if isinstance(item, Document)} == {"Prosa."}


def test_passages_that_were_removed_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(_xml("0.10", _page(1, text="One.\n\n{{cut off")[6:-8]))
    source = Source(kind="mediawiki", name="w", paths=[f"{tmp_path}/x.xml"])
    removed, document = _items(source, 10**9)
    assert removed == Removed("w", "unparsed_passages", 1)
    assert isinstance(document, Document)
    assert document.text == "T1\n\nOne."


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
