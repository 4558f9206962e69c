"""Text to clean text, or the reason why it is dropped. Pure.

`normalise` is for any text; `docstring_prose` first reduces a Python docstring to its prose:
what is left should read as English, since the pretrained model sees little of it.
"""

import inspect
import re
import string
import unicodedata
from typing import NamedTuple

from pipeline.cleaning.filters import is_repetitive, language, without_boilerplate
from pipeline.config import Cleaning

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff\ufffe\uffff\ud800-\udfff]")
_BLANKS = re.compile(r"[^\S\n]{2,}|[^\S\n ]")  # all but single blanks, which are most
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
_FENCE = re.compile(r"^\s*(```|~~~)")
_RULER = re.compile(r"^\s*[-=~^\"'`#*+_.:|<>\s]{3,}\s*$")
_DIRECTIVE = re.compile(r"^\s*\.\. ")
_SHORT_ROLE = re.compile(r":[a-zA-Z][\w:+.-]*:`~[\w.]*?(\w+)`")  # shows its last part only
_ROLE = re.compile(r":[a-zA-Z][\w:+.-]*:`[~.!]*([^`<]*?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{1,2}")
_TICKS = re.compile(r"`+([^`\n]*)`+_{0,2}")
_PARAGRAPHS = re.compile(r"\n\s*\n")
_TWO_NON_ASCII = re.compile(r"[^\x00-\x7f]{2}")  # text decoded wrongly always has some
_URL = re.compile(r"https?://\S+")


def normalise(text: str) -> str:
    """Unicode NFC, no control characters, single blanks, no blank lines more than one."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _BLANKS.sub(" ", _CONTROL.sub("", text))
    lines = [line.strip() for line in text.split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]
    return "\n".join(kept).strip()


def docstring_prose(text: str) -> str:
    """A docstring without doctests, fenced or literal code, rulers, directives and role marks."""
    kept: list[str] = []
    fenced = doctest = False
    code_indent = -1  # lines deeper than this belong to a literal block or directive
    for line in inspect.cleandoc(text).split("\n"):
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
        if fenced or doctest or code_indent >= 0 or _RULER.match(line):
            continue
        if _DIRECTIVE.match(line):
            code_indent = indent
            continue
        if line.rstrip().endswith("::"):
            code_indent = indent
            line = line.rstrip()[:-1]
        kept.append(_URL.sub("", _inline(line)))
    return _unwrap("\n".join(kept))


def _unwrap(text: str) -> str:
    """One line per paragraph: a docstring's other line breaks are those of its source file."""
    return "\n\n".join(
        " ".join(block.split()) for block in _PARAGRAPHS.split(text) if block.strip()
    )


def _inline(line: str) -> str:
    return _TICKS.sub(
        r"\1", _LINK.sub(r"\1", _ROLE.sub(r"\1", _SHORT_ROLE.sub(r"\1", line)))
    ).replace("**", "")


def repaired(text: str) -> str:
    """The text with lines mended that were decoded with a wrong encoding."""
    if text.isascii() or not _TWO_NON_ASCII.search(text):
        return text
    from ftfy import fix_encoding

    lines = text.split("\n")
    return "\n".join(fix_encoding(x) if _TWO_NON_ASCII.search(x) else x for x in lines)


def drop_reason(text: str, cleaning: Cleaning) -> str | None:
    """Why a clean text is not kept, the first of `DROPS` that holds; None when it is kept."""
    if len(text) < cleaning.min_characters:
        return "too_short"
    if len(text) > cleaning.max_characters:
        return "too_long"
    visible = len("".join(text.split()))
    if letters(text) < cleaning.min_alphabetic * visible:
        return "not_prose"
    if cleaning.repetition and is_repetitive(text, cleaning.repetition):
        return "repetitive"
    if cleaning.languages:
        found, score = language(text)
        if found not in cleaning.languages or score < cleaning.min_language_score:
            return "other_language"
    return None


def letters(text: str) -> int:
    """Number of letters, as str.isalpha has it."""
    raw = text.encode(errors="replace")
    found = len(raw) - len(raw.translate(None, string.ascii_letters.encode()))
    if len(raw) > len(text):
        found += sum(map(str.isalpha, "".join(_NON_ASCII.findall(text))))
    return found


DROPS = ("too_short", "too_long", "not_prose", "repetitive", "other_language")


class Cleaned(NamedTuple):
    """A clean text, why it is dropped (None: it is not), and the boilerplate lines it lost."""

    text: str
    reason: str | None
    boilerplate_lines: int


def clean(text: str, markup: str, cleaning: Cleaning) -> Cleaned:
    """Repair, strip, normalise and judge one text."""
    removed = 0
    if cleaning.repair_unicode:
        text = repaired(text)
    if cleaning.boilerplate:
        text, removed = without_boilerplate(text)
    if markup == "docstring":
        text = docstring_prose(text)
    elif cleaning.lines == "join":
        text = _unwrap(text)
    text = normalise(text)
    return Cleaned(text, drop_reason(text, cleaning), removed)
