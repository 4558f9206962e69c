"""MediaWiki markup to the text passages of an article, parsed by mwparserfromhell.

As BERT's Wikipedia (Devlin et al. 2019, §3.1): no lists, tables or headers; nor templates,
references, media, categories, formulas and comments. What stands in a link or a tag stays, and
what a few inline templates would show. A passage in which the parser finds markup that it can't
make sense of, such as a table without an end, is removed and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.nodes.extras import Parameter
from mwparserfromhell.wikicode import Wikicode

from pipeline.sources.site import ENGLISH, Site
from pipeline.sources.unclosed import parsable

# Marks of a line that is a list's, or of markup that wasn't understood; wikitext can't hold them.
_LIST, _UNPARSED = "\x00", "\x01"
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
_LITERAL_TAGS = {"nowiki", "code", "tt", "kbd", "samp", "var"}  # may be about markup
_LIST_TAGS = {"li", "dd", "dt", "ul", "ol", "dl"}
_STRAY_TAG = re.compile(
    r"</?(?:small|big|su[bp]|center|font|span|div|p|b|i|u|s|em|strong|del|ins|cite|blockquote|br|"
    r"nowiki|noinclude|includeonly|onlyinclude|code|tt)\b[^<>\n]*>",
    re.IGNORECASE,
)
_LEFTOVER = re.compile(
    r"\{\{|\}\}|\{\||\|\}|\[\[|\]\]|<!--|-->|</?(?:ref|table|t[rdh]|gallery|math)\b", re.IGNORECASE
)
_ROW = re.compile(r"\||!.*!!")  # begins a row of a table, or a parameter of a template
_QUOTES = re.compile(r"'{2,}")
_MAGIC = re.compile(r"__([^\W\d_]+(?:_[^\W\d_]+)*)__")
_VARIANT = re.compile(r"-\{([^{}\n]*)\}-")  # one text in several scripts, as in Chinese
_VARIANT_NAME = re.compile(r"\s*[a-z]{2,3}(?:-[a-z]+)*\s*:")
# Each begins at the first of some blanks, so that a long run of them is looked at once.
_AFTER_BRACKET = re.compile(r"\(\s*(?:[,;:]\s*)+")
_EMPTY_BRACKETS = re.compile(r"(?<![ \t])[ \t]*\(\s*\)")
_BLANK_BEFORE = re.compile(r"(?<![ \t])[ \t]+(?=[,.;:)](?:\s|$))")
_REDIRECT = re.compile(r"\s*#\s*redirect\b", re.IGNORECASE)
_ANY_REDIRECT = re.compile(r"\s*[#＃][^\W\d][^\s#\[\]{}|<>:]*+\s*+:?+\s*+\[\[[^\[\]\n]+\]\]")
_WIKTIONARY = re.compile(r":?(?:wikt|wiktionary):", re.IGNORECASE)


class Passages(NamedTuple):
    """The passages of an article, and how many were removed since they couldn't be parsed."""

    text: str
    unparsed: int


def is_redirect(markup: str, site: Site = ENGLISH) -> bool:
    """Whether a page only sends on to another.

    Every wiki understands `#REDIRECT`. Its own word for that isn't in a dump: a page is one when
    it holds only some word behind a `#` and a link; where redirects aren't marked, when it begins
    so.
    """
    if _REDIRECT.match(markup):
        return True
    begins = _ANY_REDIRECT.match(markup)
    return begins is not None and not (site.marks_redirects and markup[begins.end() :].strip())


def plain_text(markup: str, site: Site = ENGLISH) -> Passages:
    """The passages of an article, a paragraph a line, blank lines between them.

    Takes time linear in the markup: what would take the parser longer isn't parsed (`unclosed`).
    Raises mwparserfromhell.parser.ParserError or RecursionError on markup that it can't parse.
    """
    pieces, unparsed = parsable(markup)
    found: list[str] = []
    for piece in pieces:
        code = mwparserfromhell.parse(piece, skip_style_tags=True)
        text = _MAGIC.sub(_shown_unless_upper, _QUOTES.sub("", "".join(_parts(code, site))))
        text = _VARIANT.sub(_first_variant, text) if "-{" in text else text
        text = _BLANK_BEFORE.sub("", _EMPTY_BRACKETS.sub("", _AFTER_BRACKET.sub("(", text)))
        for line in map(str.strip, text.split("\n")):
            if _UNPARSED in line or _ROW.match(line):
                unparsed += 1
            elif line and _LIST not in line:
                found.append(line)
    return Passages("\n\n".join(found), unparsed)


def _shown_unless_upper(word: re.Match[str]) -> str:
    """`__NOTOC__` and the like show nothing, in any language; `__init__` is a word."""
    return "" if word[1] == word[1].upper() else word[0]


def _first_variant(found: re.Match[str]) -> str:
    """What `-{zh-hans:a; zh-hant:b}-` shows: its first text; nothing if it only sets a rule."""
    flags, bar, content = found[1].rpartition("|")
    if bar and {"T", "H", "D", "-"} & {flag.strip().upper() for flag in flags.split(";")}:
        return ""
    first = content.split(";")[0]
    name = _VARIANT_NAME.match(first)
    return first[name.end() :].strip() if name else content


def _parts(code: Wikicode, site: Site, literal: bool = False) -> Iterator[str]:
    for node in code.nodes:
        if isinstance(node, Text):
            yield node.value if literal else _marked(node.value)
        elif isinstance(node, Wikilink):
            yield from _link(node, site)
        elif isinstance(node, Tag):
            name = str(node.tag).strip().lower()
            if name in _LIST_TAGS:
                yield _LIST
            elif name == "br":
                yield " "
            elif name not in _DROPPED_TAGS and node.contents is not None:
                yield from _parts(node.contents, site, literal or name in _LITERAL_TAGS)
        elif isinstance(node, Template):
            yield from _template(node, site)
        elif isinstance(node, Heading):
            yield "\n\n"
        elif isinstance(node, ExternalLink):
            if node.title is not None:
                yield from _parts(node.title, site)
        elif isinstance(node, HTMLEntity):
            yield node.normalize() or ""


def _marked(text: str) -> str:
    """A text node with a mark at all that is markup still: the parser gave up on it.

    Of tags that only say how a text looks, what the text is stays.
    """
    return _LEFTOVER.sub(_UNPARSED, _STRAY_TAG.sub("", text))


def _link(link: Wikilink, site: Site) -> Iterator[str]:
    title = str(link.title)
    if site.hides(title):
        return
    if link.text is not None and str(link.text).strip():
        yield from _parts(link.text, site)
    else:
        shown = _WIKTIONARY.sub("", title.strip(), 1).removeprefix(":")
        yield shown.split("#")[0].split(" (")[0] if link.text is not None else shown


def _template(template: Template, site: Site) -> Iterator[str]:
    name = str(template.name).strip().lower()
    show = _SHOWN.get(name.replace("_", " "))
    function, colon, _ = name.partition(":")
    if colon and function in _FUNCTIONS:
        value = "".join(_parts(template.name, site)).partition(":")[2]
        yield _FUNCTIONS[function](value.strip())
    elif show:
        yield from show([p for p in template.params if not p.showkey], site)


_Show = Callable[[list[Parameter], Site], Iterator[str]]


def _value(*positions: int, before: str = "") -> _Show:
    """Shows the unnamed values at some positions, blanks between them."""

    def show(values: list[Parameter], site: Site) -> Iterator[str]:
        texts = [
            "".join(_parts(values[i].value, site))
            for i in positions
            if -len(values) <= i < len(values)
        ]
        yield before + " ".join(texts)

    return show


def _constant(text: str) -> _Show:
    return lambda values, site: iter([text])


# What the parser takes for templates, too: `{{formatnum:1234}}`.
_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "formatnum": str,
    "lc": str.lower,
    "uc": str.upper,
}
_SHOWN = {
    **dict.fromkeys(("lang", "transl", "transliteration"), _value(-1)),
    **dict.fromkeys(("nowrap", "nobr", "small", "smaller", "big", "abbr", "nihongo"), _value(0)),
    **dict.fromkeys(("quote", "blockquote", "cquote", "quotation"), _value(0)),
    **dict.fromkeys(("convert", "cvt"), _value(0, 1)),
    **dict.fromkeys(("ndash", "–", "snd", "spnd", "spaced ndash"), _constant(" – ")),
    **dict.fromkeys(("mdash", "—"), _constant(" — ")),
    **dict.fromkeys(("nbsp", "space"), _constant(" ")),
    **dict.fromkeys(("circa", "c."), _value(0, before="c. ")),
    "as of": _value(0, before="As of "),
    "'": _constant("'"),
    "!": _constant("|"),
}
