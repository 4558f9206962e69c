"""What WikiExtractor makes of a dump: JSON lines (`--json`), or `<doc …>` elements."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import files, jsonl, lines
from pipeline.sources.naming import Ids
from pipeline.sources.records import Document, InputFile, Rejected, as_document

_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The files (`AA/wiki_00`, …), each from its beginning to its end."""
    return files.matching(source)


def read(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """The articles of a file, with or without their titles. Raises BadFile when it is cut off."""
    ids = Ids(file.name)
    attributes: dict[str, str] | None = None
    begin = 0
    passage: list[str] = []
    for line in lines.read(source, file):
        if isinstance(line, Rejected):
            attributes = None
            yield line
        elif line.text.startswith("{") and line.number == 1:
            yield from _json(source, file)
            return
        elif line.text.startswith("<doc "):
            if attributes is not None:
                yield Rejected(f"{file.path}:{begin}", "no </doc> before the next <doc …>")
            attributes = dict(_ATTRIBUTE.findall(line.text))
            begin, passage = line.number, []
        elif line.text.rstrip() == "</doc>":
            if attributes is not None:
                title, text = html.unescape(attributes.get("title", "")), "".join(passage)
                key = ids.of(attributes.get("id"), f":{begin}")
                yield Document(key, _text(source, title, html.unescape(text)), source.label)
            attributes = None
        elif attributes is not None:
            passage.append(line.text)
        elif begin == 0 and line.text.strip():
            raise BadFile(
                f"{file.path}: begins with {line.text.strip()[:40]!r}, expected a JSON object or "
                "`<doc …>`, as WikiExtractor writes them"
            )
    if attributes is not None:
        raise BadFile(f"{file.path}: cut off within the <doc …> of line {begin}; fetch it again")


def _json(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    ids = Ids(file.name)
    for record in jsonl.records(source, file):
        if isinstance(record, Rejected):
            yield record
            continue
        place = lines.place(file, record.number)
        article = record.content
        if isinstance(article, dict) and isinstance(article.get("text"), str):
            text = html.unescape(article["text"])
            article["text"] = _text(source, str(article.get("title", "")), text)
        yield as_document(source, ids, article, place=place, where=file.path + place)


def _text(source: Source, title: str, text: str) -> str:
    """The article with its title in front, or without it; WikiExtractor's formats differ."""
    text = text.strip().removeprefix(f"{title}\n").lstrip() if title else text.strip()
    return f"{title}\n\n{text}" if source.title and title and text else text
