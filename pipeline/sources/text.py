"""Text files: a document for the file, for each line, or for each block between blank lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.config import Source
from pipeline.sources import files, lines
from pipeline.sources.records import Document, InputFile, Rejected

_SUFFIXES = (".txt", ".text")


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The files; large ones in parts unless each is one document."""
    found = files.matching(source, _SUFFIXES)
    if source.documents == "file":
        return found
    by_blocks = source.documents == "blank-lines"
    return lines.in_parts(
        source, found, chunk_bytes, lambda before, line: not by_blocks or not before.strip()
    )


def read(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """The documents of a file or a part of one."""
    if source.documents == "file":
        text = _joined(lines.read(source, file))
        yield text if isinstance(text, Rejected) else Document(file.name, text, source.label)
        return
    block: list[lines.Line | Rejected] = []
    for line in lines.read(source, file):
        if isinstance(line, lines.Line) and not line.text.strip():
            if block:
                yield _document(source, file, block)
            block = []
        elif source.documents == "line":
            yield _document(source, file, [line])
        else:
            block.append(line)
    if block:
        yield _document(source, file, block)


def _document(
    source: Source, file: InputFile, block: list[lines.Line | Rejected]
) -> Document | Rejected:
    """A document, called by its first line; Rejected when one of its lines is."""
    found = _joined(block)
    if isinstance(found, Rejected):
        return found
    first = block[0]
    assert isinstance(first, lines.Line)
    return Document(file.name + lines.place(file, first.number), found, source.label)


def _joined(found: Iterable[lines.Line | Rejected]) -> str | Rejected:
    """The text of some lines, or the first that can't be read."""
    texts: list[str] = []
    rejected: Rejected | None = None
    for line in found:
        if isinstance(line, Rejected):
            rejected = rejected or line
        else:
            texts.append(line.text)
    return rejected or "".join(texts)
