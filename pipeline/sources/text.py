"""Text files: a document for the file, for each line, or for each block between blank lines."""

from __future__ import annotations

from collections.abc import Iterator

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
        yield _whole(source, file)
        return
    block: list[str] = []
    place = ""
    for line in lines.read(source, file):
        if isinstance(line, Rejected):
            yield line
        elif source.documents == "line":
            if line.text.strip():
                yield Document(file.name + lines.place(file, line.number), line.text, source.label)
        elif line.text.strip():
            place = place if block else lines.place(file, line.number)
            block.append(line.text)
        elif block:
            yield Document(file.name + place, "".join(block), source.label)
            block = []
    if block:
        yield Document(file.name + place, "".join(block), source.label)


def _whole(source: Source, file: InputFile) -> Document | Rejected:
    texts: list[str] = []
    rejected: Rejected | None = None
    for line in lines.read(source, file):
        if isinstance(line, Rejected):
            rejected = rejected or line
        else:
            texts.append(line.text)
    return rejected or Document(file.name, "".join(texts), source.label)
