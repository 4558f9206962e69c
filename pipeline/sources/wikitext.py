"""MediaWiki markup to the text passages of an article, parsed by mwparserfromhell.

As BERT's Wikipedia (Devlin et al. 2019, §3.1): no lists, tables or headers; nor templates,
references, media, categories, formulas and comments. What stands in a link or a tag stays, and
what a few inline templates would show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.nodes.extras import Parameter
from mwparserfromhell.wikicode import Wikicode

_LIST = "\x00"  # marks a line as a list's; wikitext can't hold it
_DROPPED_TAGS = {
    *("ref", "references", "table", "gallery", "math", "chem", "ce", "score", "timeline"),
    *(
        "imagemap",
        "source",
        "syntaxhighlight",
        "pre",
        "style",
        "templatestyles",
        "graph",
        "mapframe",
    ),
    *("hiero", "categorytree", "inputbox", "noinclude", "includeonly", "section"),
}
_LIST_TAGS = {"li", "dd", "dt", "ul", "ol", "dl"}
_NO_TEXT_LINK = re.compile(
    r"\s*(file|image|media|category|[a-z]{2,3}(-[a-z]+)*|simple|wikt|wiktionary)\s*:", re.IGNORECASE
)
_QUOTES = re.compile(r"'{2,}")
_MAGIC = re.compile(r"__[A-Z]+__")
_AFTER_BRACKET = re.compile(r"\(\s*(?:[,;:]\s*)+")
_EMPTY_BRACKETS = re.compile(r"[ \t]*\(\s*\)")
_BLANK_BEFORE = re.compile(r"[ \t]+(?=[,.;:)](?:\s|$))")
_REDIRECT = re.compile(r"\s*#\s*redirect\b", re.IGNORECASE)


def is_redirect(markup: str) -> bool:
    """Whether a page only sends on to another."""
    return _REDIRECT.match(markup) is not None


def plain_text(markup: str) -> str:
    """The passages of an article, a paragraph a line, blank lines between them.

    Raises mwparserfromhell.parser.ParserError or RecursionError on markup that it can't parse.
    """
    text = "".join(_parts(mwparserfromhell.parse(markup, skip_style_tags=True)))
    text = _MAGIC.sub("", _QUOTES.sub("", text))
    text = _BLANK_BEFORE.sub("", _EMPTY_BRACKETS.sub("", _AFTER_BRACKET.sub("(", text)))
    lines = [line.strip() for line in text.split("\n") if _LIST not in line]
    return "\n\n".join(line for line in lines if line)


def _parts(code: Wikicode) -> Iterator[str]:
    for node in code.nodes:
        if isinstance(node, Text):
            yield node.value
        elif isinstance(node, Wikilink):
            yield from _link(node)
        elif isinstance(node, Tag):
            name = str(node.tag).strip().lower()
            if name in _LIST_TAGS:
                yield _LIST
            elif name == "br":
                yield " "
            elif name not in _DROPPED_TAGS and node.contents is not None:
                yield from _parts(node.contents)
        elif isinstance(node, Template):
            yield from _template(node)
        elif isinstance(node, Heading):
            yield "\n\n"
        elif isinstance(node, ExternalLink):
            if node.title is not None:
                yield from _parts(node.title)
        elif isinstance(node, HTMLEntity):
            yield node.normalize() or ""


def _link(link: Wikilink) -> Iterator[str]:
    title = str(link.title)
    if _NO_TEXT_LINK.match(title):
        return
    if link.text is not None and str(link.text).strip():
        yield from _parts(link.text)
    else:
        yield title.lstrip(":").split("#")[0].split(" (")[0] if link.text is not None else title


def _template(template: Template) -> Iterator[str]:
    show = _SHOWN.get(str(template.name).strip().lower().replace("_", " "))
    if show:
        values = [p for p in template.params if not p.showkey]
        yield from show(values)


def _value(*positions: int) -> Callable[[list[Parameter]], Iterator[str]]:
    """Shows the unnamed values at some positions, blanks between them."""

    def show(values: list[Parameter]) -> Iterator[str]:
        texts = [
            "".join(_parts(values[i].value)) for i in positions if -len(values) <= i < len(values)
        ]
        yield " ".join(texts)

    return show


def _constant(text: str) -> Callable[[list[Parameter]], Iterator[str]]:
    return lambda values: iter([text])


_SHOWN = {
    **dict.fromkeys(("lang", "transl", "transliteration"), _value(-1)),
    **dict.fromkeys(("nowrap", "nobr", "small", "smaller", "big", "abbr", "nihongo"), _value(0)),
    **dict.fromkeys(("quote", "blockquote", "cquote", "quotation"), _value(0)),
    **dict.fromkeys(("convert", "cvt"), _value(0, 1)),
    **dict.fromkeys(("ndash", "–", "snd", "spnd", "spaced ndash"), _constant(" – ")),
    **dict.fromkeys(("mdash", "—"), _constant(" — ")),
    **dict.fromkeys(("nbsp", "space"), _constant(" ")),
    **dict.fromkeys(("circa", "c."), lambda values: iter(["c. ", *_value(0)(values)])),
    "as of": lambda values: iter(["As of ", *_value(0)(values)]),
    "'": _constant("'"),
    "!": _constant("|"),
}
