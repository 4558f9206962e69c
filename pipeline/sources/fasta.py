"""FASTA: sequences of proteins or nucleotides, each a document without line breaks.

The id is the header's first word; a sequence's letters stay as they are, in their case.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Source
from pipeline.errors import BadFile
from pipeline.sources import files, lines
from pipeline.sources.naming import Ids
from pipeline.sources.records import Document, InputFile, Rejected

_SUFFIXES = (".fasta", ".fa", ".faa", ".fna", ".ffn", ".frn", ".fas", ".fsa", ".pep")


def find(source: Source, chunk_bytes: int) -> list[InputFile]:
    """The files; large plain ones in parts that begin with a header."""
    found = files.matching(source, _SUFFIXES)
    return lines.in_parts(source, found, chunk_bytes, lambda before, line: line.startswith(b">"))


def read(source: Source, file: InputFile) -> Iterator[Document | Rejected]:
    """The sequences of a file or a part. Raises BadFile when it doesn't begin with a header."""
    ids = Ids(file.name)
    header: lines.Line | None = None
    sequence: list[str] = []
    is_bad = False  # a line of this record couldn't be decoded
    for line in lines.read(source, file):
        if isinstance(line, Rejected):
            is_bad = True
            yield line
        elif line.text.startswith(">"):
            if header and not is_bad:
                yield _record(source, file, ids, header, "".join(sequence))
            header, sequence, is_bad = line, [], False
        elif line.text.startswith(";") or not line.text.strip():
            continue  # comments of the old format
        elif header is None and not is_bad:
            what = "FASTQ" if line.text.startswith("@") else f"{line.text.strip()[:40]!r}"
            raise BadFile(f"{file.path}: begins with {what}, expected a header of FASTA: `>ID`")
        else:
            sequence += line.text.split()
    if header and not is_bad:
        yield _record(source, file, ids, header, "".join(sequence))


def _record(
    source: Source, file: InputFile, ids: Ids, header: lines.Line, sequence: str
) -> Document | Rejected:
    place = lines.place(file, header.number)
    if not sequence:
        return Rejected(file.path + place, f"no sequence behind {header.text.strip()[:80]!r}")
    name = header.text[1:].split(maxsplit=1)
    return Document(ids.of(name[0] if name else None, place), sequence, source.label)
