"""A Python docstring to its prose: no doctests, code, rulers, directives and role marks.

Every pattern takes time linear in the line, whatever is in it.
"""

from __future__ import annotations

import inspect
import re

from pipeline.cleaning.normalise import unwrapped

_BLANK_LINES = re.compile(r"\n(?:[ \t]*+\n){2,}")  # which cleandoc would remove one by one
_FENCE = re.compile(r"^\s*(```|~~~)")
_RULER = re.compile(r"[-=~^\"'`#*+_.:|<>\s]{3,}")
_DIRECTIVE = re.compile(r"^\s*\.\. ")
_ROLE_NAME = r":[a-zA-Z][\w:+.-]{0,60}:"
_SHORT_ROLE = re.compile(_ROLE_NAME + r"`~(?:[\w.]*\.)?(\w++)`")  # shows its last part only
_ROLE = re.compile(_ROLE_NAME + r"`[~.!]*+([^`<]*+)(<[^`>]*+>)?`")
_LINK = re.compile(r"`([^`<]++)<[^`>]++>`_{1,2}")
_TICKS = re.compile(r"`+([^`\n]*)`+_{0,2}")
_URL = re.compile(r"https?://\S+")


def prose(text: str) -> str:
    """The prose of a docstring, one line per paragraph."""
    kept: list[str] = []
    fenced = doctest = False
    code_indent = -1  # lines deeper than this belong to a literal block or directive
    for line in inspect.cleandoc(_BLANK_LINES.sub("\n\n", text)).split("\n"):
        indent = len(line) - len(line.lstrip())
        if _FENCE.match(line):
            fenced = not fenced
            continue
        if not line.strip():
            doctest = False
            kept.append("")
            continue
        if line.lstrip().startswith((">>> ", ">>>\t")) or line.strip() == ">>>":
            doctest = True
        if code_indent >= 0 and indent <= code_indent:
            code_indent = -1
        if fenced or doctest or code_indent >= 0 or _RULER.fullmatch(line):
            continue
        if _DIRECTIVE.match(line):
            code_indent = indent
            continue
        if line.rstrip().endswith("::"):
            code_indent = indent
            line = line.rstrip()[:-1]
        kept.append(_URL.sub("", _inline(line)))
    return unwrapped("\n".join(kept))


def _inline(line: str) -> str:
    if "`" in line:
        line = _SHORT_ROLE.sub(r"\1", line)
        line = _ROLE.sub(lambda role: role[1].rstrip() if role[2] else role[1], line)
        line = _LINK.sub(lambda link: link[1].rstrip(), line)
        line = _TICKS.sub(r"\1", line)
    return line.replace("**", "")
