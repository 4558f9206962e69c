"""The file formats: each gives (line number, {column: text}) per row, or words and tags.

GLUE's TSVs have no quoting at all; CoLA's have no header, MRPC's begin with a byte order mark, and
some of QQP's rows lack columns. CSV is RFC 4180's (AG News, SWAG), JSON one object a line or one
list, CoNLL one word a line with a blank line after each sentence, TREC `COARSE:fine question`.
"""

import csv
import gzip
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError

logger = logging.getLogger(__name__)

Row = tuple[int, dict[str, str]]
FORMATS = {
    ".tsv": "tsv",
    ".txt": "tsv",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".conll": "conll",
    ".conllu": "conll",
}


def format_of(path: Path) -> str:
    """A file's format by its name, whether compressed or not; FinetuneError for an unknown one."""
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in FORMATS:
        raise FinetuneError(f"{path}: found {suffix!r}, expected one of {', '.join(FORMATS)}.")
    return FORMATS[suffix]


def open_text(path: Path) -> io.StringIO:
    """The file's text; UTF-8 with or without a byte order mark, else Latin-1; .gz is unpacked."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise FinetuneError(f"{path}: {getattr(error, 'strerror', None) or error}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    # newline="\n" keeps every other line-like character.
    return io.StringIO(text, newline="\n")


@dataclass(frozen=True)
class Table:
    """A file's columns and its rows, read as they are asked for."""

    columns: tuple[str, ...]
    rows: Iterator[Row]


def read_tsv(path: Path, columns: tuple[str, ...], drops_short_rows: bool) -> Table:
    """Split on tabs, no quoting, nothing stripped but the line end. `columns`: () for a header."""
    lines = open_text(path)
    first = 1
    if not columns:
        columns, first = tuple(lines.readline().rstrip("\r\n").split("\t")), 2

    def rows() -> Iterator[Row]:
        dropped = 0
        for number, line in enumerate(lines, start=first):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) == len(columns):
                yield number, dict(zip(columns, fields, strict=True))
            elif drops_short_rows:
                dropped += 1
            else:
                raise _wrong_count(path, number, len(fields), columns)
        if dropped:
            logger.warning("%s: %d rows without %d fields dropped", path, dropped, len(columns))

    return Table(columns, rows())


def read_csv(path: Path, columns: tuple[str, ...]) -> Table:
    """RFC 4180. The line number is that of the row's last line. `columns`: () for a header."""
    reader = csv.reader(open_text(path), strict=True)
    columns = columns or tuple(next(reader, ()))

    def rows() -> Iterator[Row]:
        try:
            for fields in reader:
                if len(fields) != len(columns):
                    raise _wrong_count(path, reader.line_num, len(fields), columns)
                yield reader.line_num, dict(zip(columns, fields, strict=True))
        except csv.Error as error:
            raise FinetuneError(f"{path}, line {reader.line_num}: {error}.") from None

    return Table(columns, rows())


def _wrong_count(path: Path, number: int, found: int, columns: tuple[str, ...]) -> FinetuneError:
    return FinetuneError(
        f"{path}, line {number}: {found} fields, expected {len(columns)} ({', '.join(columns)})."
    )


def read_json(path: Path) -> Table:
    """One object a line, or one list of objects (alone or under `data`); values become text.

    The columns are the first object's; a row that lacks one has "" there.
    """
    text = open_text(path).read()
    records: list[Any] = []
    try:
        whole = json.loads(text)
        records = whole.get("data", [whole]) if isinstance(whole, dict) else whole
    except ValueError:
        for number, line in enumerate(text.rstrip("\n").split("\n"), start=1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise FinetuneError(f"{path}, line {number}: {error}.") from None
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise FinetuneError(f"{path}, row {number}: expected an object of columns.")
    columns = tuple(records[0]) if records else ()
    rows = (
        (number, {name: str(record.get(name, "")) for name in columns})
        for number, record in enumerate(records, start=1)
    )
    return Table(columns, rows)


def read_trec(path: Path) -> Table:
    """`COARSE:fine question` as the columns coarse, fine (with its coarse class) and question."""

    def rows() -> Iterator[Row]:
        for number, line in enumerate(open_text(path), start=1):
            fine, _, question = line.rstrip("\r\n").partition(" ")
            coarse, colon, _ = fine.partition(":")
            if not colon or not question:
                raise FinetuneError(
                    f"{path}, line {number}: found {line.rstrip()!r}, "
                    "expected 'COARSE:fine question'."
                )
            yield number, {"coarse": coarse, "fine": fine, "question": question}

    return Table(("coarse", "fine", "question"), rows())


def read_conll(
    path: Path, columns: tuple[str, ...], word: str, tag: str
) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield (number of its first line, words, tags) per sentence.

    Fields are divided by tabs where there are any, else by white space. Comments, CoNLL-U's
    multiword and empty tokens (ids such as 1-2 and 1.1) and `-DOCSTART-` lines are no words.
    """
    where = {name: index for index, name in enumerate(columns)}
    words: list[str] = []
    tags: list[str] = []
    first = 1
    for number, line in enumerate(open_text(path), start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            if words:
                yield first, words, tags
            words, tags = [], []
            continue
        if line.startswith(("# ", "-DOCSTART-")):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) != len(columns):
            raise _wrong_count(path, number, len(fields), columns)
        if "id" in where and not fields[where["id"]].isdigit():
            continue
        if not words:
            first = number
        words.append(fields[where[word]])
        tags.append(fields[where[tag]])
    if words:
        yield first, words, tags
