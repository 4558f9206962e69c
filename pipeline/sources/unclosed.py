"""Markup that its parser can read in linear time, and none that it can't.

Whatever opens and has no end (a table, a template, a link, a tag, a comment), or is nested too
deep, mwparserfromhell reads to the end of the text, gives up, and reads again as text. So its time
is that of the markup once, and once more for each of those. An article with more of them than any
editor leaves behind is read paragraph by paragraph; a paragraph of that kind isn't read at all.
"""

from __future__ import annotations

import re

_MOST_UNCLOSED = 20  # with which an article takes about four times as long
_MOST_DEPTH = 50  # the parser gives up at 100 of its own, of which some constructs take two
_MOST_SIGNS = 200  # equals signs in a heading, which the parser recurses for
_TOKEN = re.compile(
    r"(?P<close>\}\}|\|\}(?!\})|\]\]|(?<!\])\](?!\])|</(?P<closed>[a-z][a-z0-9]*))"
    r"|(?P<open>\{\{|\{\||\[\[|\[(?=[a-z][a-z0-9+.-]{0,20}:|//)|<(?P<tag>[a-z][a-z0-9]*))"
    r"|(?P<comment><!--)|(?P<self>/>)",
    re.IGNORECASE,
)
_CLOSES = {"}}": "{{", "|}": "{|", "]]": "[[", "]": "["}
_SINGLE_TAGS = {"br", "wbr", "hr", "meta", "link", "img", "li", "dt", "dd", "th", "td", "tr"}
_OPAQUE_TAGS = {
    "nowiki",
    "pre",
    "math",
    "chem",
    "ce",
    "source",
    "syntaxhighlight",
    "score",
    "timeline",
}
_REST_OF_TAG = re.compile(r"[^<>]*>")
_PARAGRAPHS = re.compile(r"\n[ \t]*+\n")
_LONG_HEADING = re.compile(rf"^=(?:[^=\n]*+=++){{{_MOST_SIGNS},}}.*", re.MULTILINE)


def parsable(markup: str) -> tuple[list[str], int]:
    """The markup in pieces that together take linear time, and how many paragraphs aren't in them.

    Mostly one piece, and none missing.
    """
    if not _is_costly(markup):
        return [markup], 0
    paragraphs = _PARAGRAPHS.split(markup)
    pieces = [paragraph for paragraph in paragraphs if not _is_costly(paragraph)]
    return pieces, len(paragraphs) - len(pieces)


def _is_costly(markup: str) -> bool:
    """Whether the parser would read a good part of the markup more than `_MOST_UNCLOSED` times."""
    return unclosed(markup) > _MOST_UNCLOSED or _LONG_HEADING.search(markup) is not None


def unclosed(markup: str) -> int:
    """How many constructs have no end, end within another one that they began in, or are too deep.

    Takes linear time, about a tenth of what parsing takes.
    """
    count = 0
    stack: list[str] = []
    waiting: dict[str, int] = {}  # how many of each are in the stack
    skipped_to = 0
    endless: set[str] = set()  # what is known not to end behind here
    for found in _TOKEN.finditer(markup):
        if found.start() < skipped_to:
            continue
        sign = found[0].lower()
        if found["comment"] or (found["tag"] and sign[1:] in _OPAQUE_TAGS):
            end = _end_of_opaque(markup, sign, found.end(), endless)
            skipped_to = max(end, 0)
            count += end < 0
        elif found["open"]:
            if found["tag"] and sign[1:] in _SINGLE_TAGS:
                continue
            if len(stack) >= _MOST_DEPTH:
                count += 1
            else:
                stack.append(sign)
                waiting[sign] = waiting.get(sign, 0) + 1
        else:
            if found["self"]:
                opened = stack[-1] if stack and stack[-1].startswith("<") else ""
            elif found["closed"]:
                opened = "<" + sign[2:]
            else:
                opened = _CLOSES[sign]
            if waiting.get(opened):
                while (last := stack.pop()) != opened:
                    count += 1
                    waiting[last] -= 1
                waiting[opened] -= 1
    return count + len(stack)


def _end_of_opaque(markup: str, sign: str, start: int, endless: set[str]) -> int:
    """Where a comment or a tag whose contents are no markup ends; -1 if it doesn't."""
    if sign != "<!--" and (rest := _REST_OF_TAG.match(markup, start)) and rest[0][-2:] == "/>":
        return rest.end()
    if sign in endless:
        return -1
    end = "-->" if sign == "<!--" else re.escape(f"</{sign[1:]}")
    if ended := re.compile(end, re.IGNORECASE).search(markup, start):
        return ended.end()
    endless.add(sign)
    return -1
