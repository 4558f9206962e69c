import pytest

from pipeline.sources.site import ENGLISH
from pipeline.sources.wikitext import is_redirect, plain_text

MARKED = ENGLISH._replace(marks_redirects=True)


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''[[Target|shown]]'', [[plain]].", "Bold and shown, plain."),
        ("A<ref name=x>{{cite|b}}</ref> claim<ref name=x />.", "A claim."),
        ("Before\n{| class=x\n! head\n|-\n| cell [[a]]\n|}\nafter", "Before\n\nafter"),
        ("Intro.\n== Heading ==\n* item\n# one\n: indented\nText.", "Intro.\n\nText."),
        ("[[File:a.jpg|thumb|A [[linked]] caption]]Text[[Category:X]][[fr:Y]]", "Text"),
        ("{{Infobox|a={{b|c}}\n|d=e}}Text ({{IPA|x}}; born 1900)", "Text (born 1900)"),
        ("x ({{lang|fr}}) <!-- hidden --> y", "x (fr)  y"),
        ("{{convert|5|km|mi}} on {{lang|de|Weg}}", "5 km on Weg"),
        ("[http://a.b title] and http://c.d &amp; &nbsp;end", "title and  &  end"),
        ("<math>x^2</math>Area m<sup>2</sup>", "Area m2"),
        ("__NOTOC__[[Foo (bar)|]]", "Foo"),
        ("[[CSI: Miami]] and [[Re:Zero]] in [[2001: A Space Odyssey]]", None),
        ("see [[:File:x.jpg]], [[:Category:Y]]", "see File:x.jpg, Category:Y"),
        ("a [[wikt:quiz|quiz]], a [[wikt:quiz]], [[Talk:Z|a talk]]", "a quiz, a quiz, a talk"),
        ("__KEIN_INHALTSVERZEICHNIS__ __БЕЗ_ОГЛАВЛЕНИЯ__ __目次__ __init__", "__init__"),
        ("-{zh-hans:计算机; zh-hant:電腦;}-是-{机}--{T|zh-cn:甲; zh-tw:乙}-器", "计算机是机器"),
        ("about <nowiki>[[links]] and {{templates}}</nowiki>", "about [[links]] and {{templates}}"),
        (
            "It has {{formatnum:1234}} or {{ FORMATNUM: {{nowrap|1,5}} |R}} parts.",
            "It has 1234 or 1,5 parts.",
        ),
        ("a {{lc:WORD}}, {{uc: b}}, {{Infobox: x}}", "a word, B,"),
        ("a <small>stray tag</div> and <code>{|</code>", "a stray tag and {|"),
    ],
)
def test_markup_is_removed_and_text_stays(markup: str, text: str | None) -> None:
    expected = markup.replace("[[", "").replace("]]", "") if text is None else text
    found = plain_text(markup)
    assert found.text.replace("\u00a0", " ") == expected
    assert found.unparsed == 0


@pytest.mark.parametrize(
    ("markup", "text", "unparsed"),
    [
        ("One.\n{| class=x\n| cell\n|-\n| cell\nTwo.", "One.\n\nTwo.", 4),
        ("One.\n{{Infobox\n| a = b\n\nTwo.", "One.\n\nTwo.", 2),
        ("One. [[File:a.jpg|thumb|cut off\n\nTwo.", "Two.", 1),
        ("One.<ref>cut off\n\nTwo. }} Three.\n\nFour.", "Four.", 2),
    ],
)
def test_passages_that_cannot_be_parsed_are_removed_and_counted(
    markup: str, text: str, unparsed: int
) -> None:
    assert plain_text(markup) == (text, unparsed)


@pytest.mark.parametrize(
    "markup",
    [
        *(
            "#REDIRECT [[x]]",
            " # redirect[[x]]",
            "#WEITERLEITUNG [[Haus]]",
            "#перенаправление [[Дом]]",
        ),
        *(
            "#RINVIA [[Casa]]",
            "#重定向 [[房]]",
            "＃転送[[家]]",
            "#تغییر_مسیر [[خانه]]",
            "#Redirect: [[x]]",
        ),
        *("#पुनर्प्रेषित [[घर]]", "#เปลี่ยนทาง [[บ้าน]]", "\n#넘겨주기 [[집]] [[분류:x]]"),
    ],
)
def test_redirects_of_any_language(markup: str) -> None:
    assert is_redirect(markup)
    assert is_redirect(markup, MARKED) == (not markup.endswith("[[분류:x]]"))


@pytest.mark.parametrize(
    "markup", ["He wrote #redirect", "# [[item]] one\n# [[item]] two", "#1 [[hit]]", "#hashtag", ""]
)
def test_articles_are_no_redirects(markup: str) -> None:
    assert not is_redirect(markup)
