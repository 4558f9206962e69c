"""MediaWiki XML dumps to articles: redirects and pages outside the article namespace are skipped.

Wikimedia publishes multistream dumps: one bz2 stream per 100 pages, and an index of where they
begin. With the index beside it a dump is read in parts, in parallel; any other dump from its
beginning to its end.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from itertools import chain
from typing import cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from mwparserfromhell.parser import ParserError

from pipeline.config import Source
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import files
from pipeline.sources.records import Document, InputFile, Rejected, Skipped
from pipeline.sources.wikitext import is_redirect, plain_text

_DUMP, _INDEX = "-multistream", "-multistream-index"


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The dumps; those with an index in parts of about `chunk_bytes` compressed bytes."""
    parts: list[InputFile] = []
    for file in files.matching(source):
        if _INDEX in file.path.rsplit("/", 1)[-1]:
            continue
        offsets = _stream_offsets(file.path) if _DUMP in file.path else None
        if not offsets:
            parts.append(file)
            continue
        if offsets[-1] >= file.whole:
            raise PipelineError(
                f"{file.path}: {file.whole:,} bytes, but its index names a stream at "
                f"{offsets[-1]:,}: dump and index don't belong together, or the dump is cut off"
            )
        start = 0  # part one begins with the dump's header, in front of the first stream of pages
        for end in [*offsets[1:], file.whole]:
            if end == file.whole or end - start >= chunk_bytes:
                parts.append(InputFile(file.path, file.name, end - start, file.whole, start, end))
                start = end
    return parts


def _stream_offsets(path: str) -> list[int] | None:
    """Where the streams of pages begin, from `OFFSET:PAGE:TITLE` lines; None without an index."""
    folder, slash, name = path.rpartition("/")
    index = folder + slash + name.replace(_DUMP, _INDEX).replace(".xml", ".txt")
    try:
        return sorted({int(line.split(b":", 1)[0]) for line in files.lines(index)})
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PipelineError(f"{index}: not an index of a multistream dump ({error})") from error


def read(source: Source, file: InputFile) -> Iterator[Document | Skipped | Rejected]:
    """The articles of a dump or a part of it. Raises BadFile when it is cut off or no XML."""
    name = source.label
    for page in _pages(file):
        title, namespace, number = (page.findtext(key) or "" for key in ("title", "ns", "id"))
        markup = page.findtext("revision/text") or ""
        if namespace != "0":
            yield Skipped(name, "not_article")
        elif page.find("redirect") is not None or is_redirect(markup):
            yield Skipped(name, "redirect")
        else:
            try:
                text = plain_text(markup)
            except (ParserError, RecursionError) as error:
                yield Rejected(f"{file.path}:{title}", f"markup can't be parsed: {error}")
                continue
            text = f"{title}\n\n{text}" if source.title and text else text
            yield Document(f"{file.name}:{number}", text, name)


def _pages(file: InputFile) -> Iterator[Element]:
    parser: XMLPullParser[Element] = XMLPullParser(["start", "end"])
    inner = file.start > 0, file.stop is not None and file.stop < file.whole
    content = files.blocks(file.path) if file.stop is None else _streams(file)
    root: Element | None = None
    try:
        for block in chain(
            [b"<mediawiki>"] if inner[0] else [], content, [b"</mediawiki>"] if inner[1] else []
        ):
            parser.feed(block)
            for event, element in cast(Iterator[tuple[str, Element]], parser.read_events()):
                element.tag = element.tag.rpartition("}")[2]
                if event == "start":
                    root = element if root is None else root
                elif element.tag == "page" and root is not None:
                    yield element
                    root.clear()  # else all pages stay in memory
        parser.close()
    except ParseError as error:
        raise BadFile(f"{file.path}: cut off, or no MediaWiki dump ({error})") from error


def _streams(file: InputFile) -> Iterator[bytes]:
    """The decompressed bytes of the bz2 streams from `start` to `stop`."""
    assert file.stop is not None
    with files.open_raw(file.path) as raw:
        raw.seek(file.start)
        rest = raw.read(file.stop - file.start)
    try:
        while rest:
            decoder = bz2.BZ2Decompressor()
            yield decoder.decompress(rest)
            if not decoder.eof:
                raise EOFError("the last bz2 stream has no end")
            rest = decoder.unused_data
    except (OSError, EOFError) as error:
        where = f"bytes {file.start:,} to {file.stop:,}"
        raise BadFile(f"{file.path}: damaged in {where} ({error}); fetch it again") from error
