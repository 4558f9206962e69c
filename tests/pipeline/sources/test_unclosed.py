import time

import pytest

from pipeline.sources.unclosed import parsable, unclosed
from pipeline.sources.wikitext import plain_text

PROSE = "The mill stood by the river for three hundred years, and then it burned."


@pytest.mark.parametrize(
    ("markup", "count"),
    [
        ("[[a|b]] {{c|{{d}}|}} {| e\n|}\n<ref>f</ref><ref name=g/> <br> [http://h i]", 0),
        ("<!-- {{ [[ --> <nowiki>{{</nowiki> <math>a<b{{c}</math> <nowiki/>", 0),
        ("{{a [[b", 2),
        ("{{a [[b }}", 1),
        ("}} ]] |} </b> ]", 0),
        ("<!-- <!-- x", 2),
        ("<math> <math> x", 2),
        ("{{a" * 60 + "}}" * 60, 10),
    ],
)
def test_what_has_no_end_is_counted(markup: str, count: int) -> None:
    assert unclosed(markup) == count


def test_a_few_are_left_to_the_parser() -> None:
    markup = "{{a\n\n[[b\n\n<div>c"
    assert parsable(markup) == ([markup], 0)


def test_only_the_paragraphs_that_cost_too_much_are_left_out() -> None:
    markup = f"{PROSE}\n\n{'{| ' * 100}\n\n'''B''' {{{{a|[[b]]}}}} {PROSE}"
    assert plain_text(markup) == (f"{PROSE}\n\nB  {PROSE}", 1)


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "{|\n| x\n",
            "{| ",
            "{{a|",
            "{{",
            "{{{",
            "[[a|",
            "[[",
            "[http://a ",
            "<div>",
            "<b ",
            "<ref>",
        ),
        *(
            "<!--",
            "<math>",
            "<",
            "&",
            "&amp",
            "== a ",
            "=",
            "=a",
            "\n== a ",
            "|",
            "||",
            "\n|-\n|",
            "!",
        ),
        *(
            "*",
            "\n*",
            "\n:",
            ";a:",
            "http://",
            "a:",
            "''",
            "-{",
            "__",
            "__A_",
            "(",
            "( ",
            " ",
            "\t(,",
        ),
        *(
            "}}",
            "|}",
            "]]",
            "</div>",
            "{{a}}",
            "[[a]]",
            "[[a|b]]",
            "<br>",
            "<ref name=a/>",
            "{|\n|}\n",
        ),
        *("{{a|[[b", "[[File:a|", "<ref>{{a|", "\n{|\n|-\n|a||", "<nowiki>", "\n;", "[[a:b|"),
    ],
)
def test_markup_of_anything_takes_linear_time(unit: str) -> None:
    markup = f"{PROSE}\n\n{unit * (20_000 // len(unit))}\n\n{PROSE}"
    start = time.process_time()
    text, _ = plain_text(markup)
    assert time.process_time() - start < 3
    assert text.startswith(PROSE)
