import bz2
import html
import json
from pathlib import Path

import pytest

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import Item, plan, read
from pipeline.sources.records import Document, Rejected

ARTICLES = [(str(n), f"Title <{n}> & more", f"First of {n}: a < b.\n\nSecond.") for n in range(9)]


def _doc(number: str, title: str, text: str) -> str:
    """As WikiExtractor writes it: what HTML would take for markup is escaped."""
    url = f"https://x.example/wiki?curid={number}"
    return (
        f'<doc id="{number}" url="{url}" title="{html.escape(title)}">\n{html.escape(title)}\n\n'
        f"{html.escape(text, quote=False)}\n\n</doc>\n"
    )


def _json(number: str, title: str, text: str) -> str:
    record = {"id": number, "revid": "1", "url": "u", "title": title, "text": html.escape(text)}
    return json.dumps(record) + "\n"


def _read(path: Path, **settings: bool) -> list[Item]:
    source = Source(kind="wikiextractor", name="w", paths=[str(path)], **settings)  # type: ignore[arg-type]
    return [i for c in plan([source], 100) for file in c.files for i in read(source, file)]


@pytest.mark.parametrize("layout", [_doc, _json])
@pytest.mark.parametrize("pack", [bytes, bz2.compress])
def test_both_formats_give_the_articles_of_a_folder(tmp_path: Path, layout, pack) -> None:  # type: ignore[no-untyped-def]
    for folder, articles in (("AA", ARTICLES[:4]), ("AB", ARTICLES[4:])):
        (tmp_path / folder).mkdir()
        content = "".join(layout(*article) for article in articles).encode()
        (tmp_path / folder / "wiki_00").write_bytes(pack(content))
    found = _read(tmp_path)
    assert found == [
        Document(f"w/{'AA' if i < 4 else 'AB'}/wiki_00:{n}", f"{title}\n\n{text}", "w")
        for i, (n, title, text) in enumerate(ARTICLES)
    ]
    plain = _read(tmp_path, title=False)
    assert [item.text for item in plain] == [text for *_, text in ARTICLES]  # type: ignore[union-attr]


def test_damage_is_told(tmp_path: Path) -> None:
    whole = "".join(_doc(*article) for article in ARTICLES)
    (tmp_path / "a").write_text(whole.replace("</doc>\n", "", 1))
    found = _read(tmp_path / "a")
    assert found[0] == Rejected(f"{tmp_path / 'a'}:1", "no </doc> before the next <doc …>")
    assert len(found) == 9
    (tmp_path / "a").write_text(whole[:-20])
    with pytest.raises(BadFile, match=r"cut off within the <doc …> of line 65"):
        _read(tmp_path / "a")
    (tmp_path / "a").write_text("Some text.\n")
    with pytest.raises(BadFile, match=r"begins with 'Some text\.', expected a JSON object or"):
        _read(tmp_path / "a")
