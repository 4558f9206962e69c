import pytest

from pipeline.sources.wikitext import is_redirect, plain_text


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
    ],
)
def test_markup_is_removed_and_text_stays(markup: str, text: str) -> None:
    assert plain_text(markup).replace("\u00a0", " ") == text


def test_redirects() -> None:
    assert is_redirect("#REDIRECT [[x]]")
    assert is_redirect(" # redirect[[x]]")
    assert not is_redirect("He wrote #redirect")
