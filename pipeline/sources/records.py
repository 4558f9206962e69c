"""What passes between the readers and the rest: documents, bad records, input files, chunks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Document(NamedTuple):
    """One document: `id` is unique and stable, `source` is what it is counted under."""

    id: str
    text: str
    source: str


class Skipped(NamedTuple):
    """A document that is none by its form, for the reason `redirect` or `not_article`."""

    source: str
    reason: str


class Removed(NamedTuple):
    """Passages that a reader removed from the texts of a source, counted under the name `what`."""

    source: str
    what: str
    number: int


class Rejected(NamedTuple):
    """A record that can't be read: `where` names file and line or object."""

    where: str
    reason: str


@dataclass(frozen=True)
class InputFile:
    """A file, or a part of one, as it was when the run was planned; `name` begins its ids."""

    path: str
    name: str
    bytes: int  # of this part; 0 where it isn't known
    whole: int  # of the whole file; a file of another size is refused. -1: not a file
    start: int = 0  # the part, in the reader's own units: bytes, row groups, data set shards
    stop: int | None = None  # None: to the end


@dataclass(frozen=True)
class Chunk:
    """Some files of one source, worked on together."""

    index: int
    source: int  # position in config.sources
    files: tuple[InputFile, ...] = field(repr=False)
