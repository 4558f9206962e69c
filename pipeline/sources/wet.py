"""Common Crawl's WET files: the text of a web page a record, read by warcio."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import files
from pipeline.sources.naming import Ids
from pipeline.sources.records import Document, InputFile, Rejected

_SUFFIXES = (".wet", ".warc")


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The files, each from its beginning to its end."""
    return files.matching(source, _SUFFIXES)


def read(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """The texts of a file; ids are those of its records. Raises BadFile when it is damaged."""
    # Imported here: other sources need none of it.
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    ids = Ids(file.name)
    number = texts = 0
    try:
        for number, record in enumerate(ArchiveIterator(files.stream(files.blocks(file.path))), 1):
            if record.rec_type != "conversion":
                continue
            texts += 1
            raw = record.content_stream().read()
            if len(raw) < int(record.rec_headers.get_header("Content-Length") or 0):
                raise EOFError("the last record has no end")
            own = record.rec_headers.get_header("WARC-Record-ID") or ""
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                yield Rejected(f"{file.path}:{number}", f"not UTF-8: {error}")
                continue
            key = own.removeprefix("<urn:uuid:").removesuffix(">")
            yield Document(ids.of(key, f":{number}"), text, source.label)
    except (ArchiveLoadFailed, EOFError, ValueError) as error:
        raise BadFile(
            f"{file.path}: cut off or damaged behind record {number:,} ({error}); fetch it again"
        ) from error
    if number and not texts:
        raise BadFile(
            f"{file.path}: {number:,} records, and none of type `conversion`; kind wet reads the "
            "texts of .warc.wet.gz, not the pages of .warc.gz"
        )
