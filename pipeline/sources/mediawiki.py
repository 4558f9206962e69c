"""MediaWiki XML dumps to articles, of any schema from 0.1 to 0.11 and any wiki.

Of a page with several revisions the newest counts. Redirects are skipped, and what is no article:
pages of other namespaces, and pages that are scripts or data rather than wikitext.

Wikimedia publishes multistream dumps: one bz2 stream per 100 pages, and an index of where they
begin. With the index beside it a dump is read in parts, in parallel; any other dump from its
beginning to its end.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from mwparserfromhell.parser import ParserError

from pipeline.config import Source
from pipeline.errors import BadFile, PipelineError
from pipeline.sources import files, lines
from pipeline.sources.naming import Ids
from pipeline.sources.records import Document, InputFile, Rejected, Removed, Skipped
from pipeline.sources.site import ARTICLE, Site, site_of
from pipeline.sources.wikitext import is_redirect, plain_text

_DUMP, _INDEX = "-multistream", "-multistream-index"


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The dumps; those with an index in parts of about `chunk_bytes` compressed bytes."""
    parts: list[InputFile] = []
    for file in files.matching(source):
        if _INDEX in file.path.rsplit("/", 1)[-1]:
            continue
        is_cut = _DUMP in file.path and files.has_ranges(file.path)
        offsets = _stream_offsets(file.path) if is_cut else None
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


def read(source: Source, file: InputFile) -> Iterator[Document | Skipped | Removed | Rejected]:
    """The articles of a dump or a part of it. Raises BadFile when it is cut off or no dump."""
    name = source.label
    ids = Ids(file.name)
    site = _site(file)
    for position, page in enumerate(_pages(file), start=1):
        title = page.findtext("title") or ""
        markup = _markup(page, file)
        if page.find("ns") is not None and _namespace(page) is None:
            stated = f"its namespace (<ns>) is {page.findtext('ns')!r}, expected a number"
            yield Rejected(f"{file.path}:{title}", stated)
        elif not _is_article(page, site, title):
            yield Skipped(name, "not_article")
        elif page.find("redirect") is not None or is_redirect(markup, site):
            yield Skipped(name, "redirect")
        else:
            try:
                text, unparsed = plain_text(markup, site)
            except (ParserError, RecursionError) as error:
                yield Rejected(f"{file.path}:{title}", f"markup can't be parsed: {error}")
                continue
            if unparsed:
                yield Removed(name, "unparsed_passages", unparsed)
            text = f"{title}\n\n{text}" if source.title and text else text
            # A title is as good an id: it doesn't depend on how the dump is cut, as positions do.
            own = (page.findtext("id") or "").strip() or title
            yield Document(ids.of(own, lines.place(file, position)), text, name)


def _namespace(page: Element) -> int | None:
    """The number of the namespace that a page states (since schema 0.6); None for no number."""
    try:
        return int(page.findtext("ns") or "")
    except ValueError:
        return None


def _is_article(page: Element, site: Site, title: str) -> bool:
    stated = _namespace(page)
    namespace = site.namespace(title) if stated is None else stated
    model = page.findtext("revision/model") or "wikitext"  # stated since 0.8
    return namespace == ARTICLE and model == "wikitext"


def _markup(page: Element, file: InputFile) -> str:
    """The text of a page's one revision. Raises BadFile when the dump has left it out."""
    text = page.find("revision/text")
    if text is None:
        return ""
    if not text.text and text.get("deleted") is None and text.get("bytes", "0") != "0":
        raise BadFile(
            f"{file.path}: {page.findtext('title')!r} has {text.get('bytes')} bytes, but none are "
            "in the file: a stub dump, without texts; fetch the one named pages-articles"
        )
    return text.text or ""


def _site(file: InputFile) -> Site:
    """What the header of a dump says of its wiki; it stands at the beginning of the whole file."""
    version = ""
    for event, element in _elements(file, files.blocks(file.path)):
        if element.tag == "mediawiki":
            version = element.get("version", "")
        if element.tag == "siteinfo" and event == "end":
            return site_of(version, element)
        if element.tag == "page":
            break
    return site_of(version, None)


def _pages(file: InputFile) -> Iterator[Element]:
    """The pages, each with its newest revision only."""
    content = files.blocks(file.path) if file.stop is None else _streams(file)
    begins_within = file.start > 0
    ends_within = file.stop is not None and file.stop < file.whole
    blocks = chain(
        [b"<mediawiki>"] if begins_within else [], content, [b"</mediawiki>"] if ends_within else []
    )
    root: Element | None = None
    page: Element | None = None
    newest: Element | None = None
    for event, element in _elements(file, blocks):
        if event == "start":
            root = element if root is None else root
            if element.tag == "page":
                page, newest = element, None
        elif element.tag == "revision" and page is not None:
            # one at a time, else the whole history of a page is in memory
            if newest is not None and _timestamp(element) < _timestamp(newest):
                page.remove(element)
            else:
                if newest is not None:
                    page.remove(newest)
                newest = element
        elif element.tag == "page" and root is not None:
            yield element
            root.clear()  # else all pages stay in memory


def _timestamp(revision: Element) -> str:
    """When a revision was saved, in ISO 8601 as dumps have it; equal ones stand in their order."""
    return revision.findtext("timestamp") or ""


def _elements(file: InputFile, blocks: Iterable[bytes]) -> Iterator[tuple[str, Element]]:
    """Starts and ends of elements, their tags without the XML namespace."""
    parser: XMLPullParser[Element] = XMLPullParser(["start", "end"])
    root = ""
    try:
        for block in blocks:
            parser.feed(block)
            for event, element in cast(Iterator[tuple[str, Element]], parser.read_events()):
                element.tag = element.tag.rpartition("}")[2]
                root = root or element.tag
                if root != "mediawiki" or element.tag == "logitem":
                    raise BadFile(
                        f"{file.path}: no dump of pages: <{element.tag}>, expected a <mediawiki> "
                        "of <page>s; fetch the one named pages-articles"
                    )
                yield event, element
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
