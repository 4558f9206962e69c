"""Lines that are no part of a text: Project Gutenberg's licence, and what web pages add."""

from __future__ import annotations

import re

_GUTENBERG_START = re.compile(r"\*\*\*? ?START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*\n", re.I)
_GUTENBERG_END = re.compile(r"\n[^\n]*\*\*\*? ?END OF (?:THE|THIS) PROJECT GUTENBERG", re.I)
_GUTENBERG_WITHIN = 50_000  # characters from either end of a book in which its licence may stand
_BOILERPLATE_LINE = re.compile(
    r"^.*(?:\bjavascript\b.*\b(?:enabled?|disabled|required)\b|\bcookies?\b.*\b(?:polic|consent|"
    r"accept|use)|\ball rights reserved\b|\bterms of (?:use|service)\b|\bprivacy policy\b|"
    r"\bclick here\b|\bsubscribe to our\b|\bsign up for our\b).*$",
    re.I | re.M,
)
_BOILERPLATE_MAX = 300  # longer lines are prose that happens to say such a thing


def without_boilerplate(text: str) -> tuple[str, int]:
    """The text without Project Gutenberg's licence and lines of web boilerplate; lines removed."""
    lines = len(text.splitlines())
    if start := _GUTENBERG_START.search(text, 0, _GUTENBERG_WITHIN):
        text = text[start.end() :]
    tail = max(len(text) - _GUTENBERG_WITHIN, 0)
    if end := _GUTENBERG_END.search(text, tail):
        text = text[: end.start()]
    removed = lines - len(text.splitlines())
    kept = []
    for line in text.split("\n"):
        if len(line) <= _BOILERPLATE_MAX and _BOILERPLATE_LINE.match(line):
            removed += 1
        else:
            kept.append(line)
    return "\n".join(kept), removed
