"""What passes between the readers and the rest: documents, bad records, input files, chunks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pipeline.config import Source
    from pipeline.sources.naming import Ids


_NONE = object()  # where nothing stands, not even null


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
    whole: int  # of the whole file; a file of another size is refused. -1: not known, or no file
    start: int = 0  # the part, in the reader's own units: bytes, row groups, data set shards
    stop: int | None = None  # None: to the end


@dataclass(frozen=True)
class Chunk:
    """Some files of one source, worked on together."""

    index: int
    source: int  # position in config.sources
    files: tuple[InputFile, ...] = field(repr=False)


def as_document(
    source: Source, ids: Ids, record: Any, *, place: str, where: str
) -> Document | Rejected:
    """The document of a record of a data set, or why it is none.

    Args:
        source: names the keys of text and id.
        ids: of the record's file.
        record: a value as it was read; a dict with a text is a document.
        place: names the record within the file, see `Ids.of`.
        where: names the file and the record.
    """
    if not isinstance(record, dict):
        return Rejected(where, f"{type(record).__name__}, expected an object")
    text = _value(record, source.text_key)
    try:
        if isinstance(text, bytes):  # Parquet's binary columns
            text = text.decode()
        own = _value(record, source.id_key)
        key = ids.of(None if own is _NONE else own, place)
    except ValueError as error:  # bytes that aren't UTF-8, a number of too many digits
        return Rejected(where, str(error))
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = "\n\n".join(text)
    if text is _NONE:
        keys = ", ".join(sorted(map(str, record))[:8])
        return Rejected(where, f"no text under {source.text_key!r}; it has {keys}")
    if not isinstance(text, str):
        return Rejected(where, f"{source.text_key!r} is {_what(text)}, expected a text")
    return Document(key, text, source.label)


def column_of(key: str, columns: list[str]) -> str | None:
    """The column of a table that `text_key` or `id_key` names: itself, or what it is nested in."""
    return next((name for name in (key, key.partition(".")[0]) if name in columns), None)


def _value(record: dict[str, Any], key: str) -> Any:
    """What stands under a key, or by its dots in nested objects; `_NONE` where nothing does."""
    if key in record:
        return record[key]
    first, dot, rest = key.partition(".")
    inner = record.get(first) if dot else None
    return _value(inner, rest) if isinstance(inner, dict) else _NONE


def _what(value: Any) -> str:
    """What a value that is no text is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return "a list of other things than strings"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, bool):
        return "a boolean"
    return "a number" if isinstance(value, int | float) else type(value).__name__
