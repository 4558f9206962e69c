from xml.etree.ElementTree import fromstring

import pytest

from pipeline.sources.site import ENGLISH, site_of

GERMAN = site_of(
    "0.10",
    fromstring(
        "<siteinfo><namespaces><namespace key='-2'>Medium</namespace><namespace key='0' />"
        "<namespace key='2'>Benutzer</namespace><namespace key='5'>Wikipedia Diskussion</namespace>"
        "<namespace key='6'>Datei</namespace><namespace key='14'>Kategorie</namespace>"
        "</namespaces></siteinfo>"
    ),
)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "Datei:Haus.jpg",
            " datei : Haus",
            "File:Haus",
            "image:Haus",
            "Medium:Lied",
            "Media:x.ogg",
        ),
        *("Kategorie:Haus", "KATEGORIE:_Haus", "Category:House", "Bild:Haus.png", "Bild:Lied.ogg"),
        *("en:House", "zh-min-nan:Chhù", "simple:House", "be-x-old:Дом"),
    ],
)
def test_links_that_show_nothing(target: str) -> None:
    assert GERMAN.hides(target)


@pytest.mark.parametrize(
    "target",
    [
        *("Haus", ":Datei:Haus.jpg", ":Kategorie:Haus", ":en:House", "CSI: Miami", "Re:Zero"),
        *("2001: A Space Odyssey", "ET: The Film", "Pac-Man: A New Maze", "JAG: x", "wikt:quiz"),
        *("s:Poems", "Benutzer:Wer", "Talk:Nothing", "IT: Kapitel 2", "It:x", "", ":", "Bild: das"),
    ],
)
def test_links_that_are_text(target: str) -> None:
    assert not GERMAN.hides(target)


def test_other_names_hold_in_their_own_wiki_only() -> None:
    assert not ENGLISH.hides("Kategorie:Haus")
    assert not ENGLISH.hides("Datei:Haus")


def test_the_namespace_is_what_the_title_says() -> None:
    titles = {"Haus": 0, "Benutzer:Wer": 2, "wikipedia_Diskussion:A": 5, "CSI: Miami": 0}
    assert {title: GERMAN.namespace(title) for title in titles} == titles
    assert ENGLISH.namespace("Category talk:House") == 15


@pytest.mark.parametrize(
    ("version", "marks"),
    [("", False), ("0.1", False), ("0.3", False), ("0.4", True), ("0.11", True)],
)
def test_redirects_are_marked_since_schema_0_4(version: str, marks: bool) -> None:
    assert site_of(version, None).marks_redirects is marks
