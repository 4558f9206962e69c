"""Files of tables: TSV, CSV, JSON, TREC; each gives where a row stands and its cells by column.

GLUE's TSVs have no quoting at all; CoLA's have no header, MRPC's begin with a byte order mark, and
some of QQP's rows lack columns. CSV is RFC 4180's (AG News, SWAG), JSON one object a line or one
list, TREC `COARSE:fine question` in Latin-1. Blank lines are no rows.
"""

import csv
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError
from finetune.text import check_text, read_lines

logger = logging.getLogger(__name__)

# Where it stands ("line 3"), and its cells: text, or whatever else JSON has.
Row = tuple[str, dict[str, Any]]
FORMATS = {
    ".tsv": "tsv",
    ".txt": "tsv",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".conll": "conll",
    ".conllu": "conll",
}
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def format_of(path: Path) -> str:
    """A file's format by its name, whether compressed or not; FinetuneError for an unknown one."""
    packed = path.suffix.lower() in (".gz", ".gzip")
    suffix = (path.with_suffix("") if packed else path).suffix.lower()
    if suffix not in FORMATS:
        raise FinetuneError(f"{path}: found {suffix!r}, expected one of {', '.join(FORMATS)}.")
    return FORMATS[suffix]


@dataclass(frozen=True)
class Table:
    """A file's columns and its rows, read as they are asked for."""

    columns: tuple[str, ...]
    rows: Iterator[Row]


def text_of(value: Any) -> str:
    """A cell as text: null is empty, true and false are JSON's words.

    ValueError for a list, an object, and half of a surrogate pair.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        kind = "an object" if isinstance(value, dict) else "a list"
        raise ValueError(f"found {kind}, expected a string")
    check_text(value)
    return value


def read_tsv(
    path: Path, columns: tuple[str, ...], drops_short_rows: bool, may_be_quoted: bool = False
) -> Table:
    """Split on tabs, nothing stripped but the line end. `columns`: () for a header.

    There is no quoting, unless it `may_be_quoted` and a CSV writer shows to have set the quotes.
    """
    lines: Iterable[str] = read_lines(path)
    if may_be_quoted:
        lines = list(lines)
        if _is_quoted(lines, len(columns)):
            return _delimited(path, lines, columns, "\t")
    numbered = (
        (number, line.rstrip("\r\n").split("\t"))
        for number, line in enumerate(lines, start=1)
        if line.strip() or "\t" in line
    )
    if not columns:
        columns = tuple(next(numbered, (1, [""]))[1])

    def rows() -> Iterator[Row]:
        dropped = 0
        for number, fields in numbered:
            if len(fields) == len(columns):
                yield f"line {number}", dict(zip(columns, fields, strict=True))
            elif drops_short_rows:
                dropped += 1
            else:
                raise wrong_count(path, number, len(fields), columns)
        if dropped:
            logger.warning("%s: %d rows without %d fields dropped", path, dropped, len(columns))

    return Table(columns, rows())


def _is_quoted(lines: list[str], expected: int) -> bool:
    """Whether a CSV writer set the quotes of a TSV, as pandas and spreadsheets do.

    Then the fields come out in number only when the quotes are read (there are line ends or tabs
    within them), or every field with a quote is quoted and some have quotes doubled, or the header
    is quoted. Text that merely has quotation marks fails all three. Where line ends within quotes
    happen to give fields in number, doubled quotes count if a writer makes the same file again.
    """
    if not any('"' in line for line in lines):
        return False
    try:
        quoted = [fields for fields in csv.reader(lines, delimiter="\t", strict=True) if fields]
    except csv.Error:
        return False
    count = expected or len(quoted[0])
    if any(len(fields) != count for fields in quoted):
        return False
    plain = [line.rstrip("\r\n").split("\t") for line in lines if line.strip()]
    if any(len(fields) != count for fields in plain):
        return True
    marked = [field for fields in plain for field in fields if '"' in field]
    whole = [field for field in marked if _QUOTED.fullmatch(field)]
    has_doubled = any('""' in field[1:-1] for field in whole)
    if len(whole) < len(marked):
        return has_doubled and _is_written_from(quoted, lines)
    return has_doubled or (not expected and all(map(_QUOTED.fullmatch, plain[0])))


def _is_written_from(rows: list[list[str]], lines: list[str]) -> bool:
    """Whether a CSV writer that quotes what it must, or everything, makes `lines` of `rows`."""
    found = "".join(lines).replace("\r\n", "\n").removesuffix("\n")
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        again = io.StringIO()
        csv.writer(again, delimiter="\t", lineterminator="\n", quoting=quoting).writerows(rows)
        if again.getvalue().removesuffix("\n") == found:
            return True
    return False


def read_csv(path: Path, columns: tuple[str, ...]) -> Table:
    """RFC 4180. A row's line is its first. `columns`: () for a header."""
    return _delimited(path, read_lines(path), columns, ",")


def _delimited(path: Path, lines: Iterable[str], columns: tuple[str, ...], delimiter: str) -> Table:
    # The module's limit of 131,072 characters a field is for whoever fears long ones.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)

    def numbered() -> Iterator[tuple[int, list[str]]]:
        first = 1
        try:
            for fields in reader:
                if fields and not (len(fields) == 1 and fields[0].isspace()):
                    yield first, fields
                first = reader.line_num + 1
        except csv.Error as error:
            raise FinetuneError(
                f"{path}, line {first}: {error} in the row that begins here."
            ) from None

    found = numbered()
    columns = columns or tuple(next(found, (1, []))[1])

    def rows() -> Iterator[Row]:
        for number, fields in found:
            if len(fields) != len(columns):
                error = wrong_count(path, number, len(fields), columns)
                raise FinetuneError(f"{error} A field with a {delimiter!r} in it needs quotes.")
            yield f"line {number}", dict(zip(columns, fields, strict=True))

    return Table(columns, rows())


def wrong_count(path: Path, number: int, found: int, columns: tuple[str, ...]) -> FinetuneError:
    """The error for a line of `found` fields."""
    return FinetuneError(
        f"{path}, line {number}: {found} fields, expected {len(columns)} ({', '.join(columns)})."
    )


def read_json(path: Path) -> Table:
    """One object a line, or one list of objects (alone or under `data`), with any columns each.

    Numbers are the text they are written as, NaN is null. Strings, booleans, null, lists and
    objects stay: see `text_of`.
    """
    records = _records(path)
    for where, record in records:
        if not isinstance(record, dict):
            raise FinetuneError(f"{path}, {where}: expected an object of columns.")
    columns = {name: None for _, record in records for name in record}
    rows = ((where, dict.fromkeys(columns) | record) for where, record in records)
    return Table(tuple(columns), rows)


def _records(path: Path) -> list[tuple[str, Any]]:
    lines = list(read_lines(path))
    text = "".join(lines)
    if not text.strip():
        return []
    try:
        whole = _parse_json(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # what a second object on a line of its own is
            raise FinetuneError(f"{path}, line {error.lineno}: {error.msg}.") from None
    else:
        if isinstance(whole, dict) and not isinstance(whole.get("data"), list):
            return [("line 1", whole)]
        whole = whole["data"] if isinstance(whole, dict) else whole
        if isinstance(whole, list):
            return [(f"record {number}", record) for number, record in enumerate(whole, start=1)]
        raise FinetuneError(f"{path}, line 1: expected an object of columns, or a list of them.")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append((f"line {number}", _parse_json(line)))
        except json.JSONDecodeError as error:
            raise FinetuneError(f"{path}, line {number}: {error.msg}.") from None
    return records


def _parse_json(text: str) -> Any:
    """JSON with numbers as they are written: 1.0 isn't 1 in a text, nor is 1e400 infinite."""
    try:
        return json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=lambda name: None if name == "NaN" else name,
        )
    except RecursionError:
        raise json.JSONDecodeError("Nested too deeply", text, 0) from None


def read_table(
    path: Path,
    format: str | None = None,
    columns: tuple[str, ...] = (),
    *,
    drops_short_rows: bool = False,
    may_be_quoted: bool = True,
) -> Table:
    """A table in this format, by default what its name says. `columns`: () for a header."""
    match format or format_of(path):
        case "csv":
            return read_csv(path, columns)
        case "json":
            return read_json(path)
        case "trec":
            return read_trec(path)
        case _:
            return read_tsv(path, columns, drops_short_rows, may_be_quoted)


def read_trec(path: Path) -> Table:
    """`COARSE:fine question` as the columns coarse, fine (with its coarse class) and question."""

    def rows() -> Iterator[Row]:
        for number, line in enumerate(read_lines(path, otherwise="latin-1"), start=1):
            if not line.strip():
                continue
            fine, _, question = line.rstrip("\r\n").partition(" ")
            coarse, colon, _ = fine.partition(":")
            if not colon or not question:
                raise FinetuneError(
                    f"{path}, line {number}: found {line.rstrip()!r}, "
                    "expected 'COARSE:fine question'."
                )
            yield f"line {number}", {"coarse": coarse, "fine": fine, "question": question}

    return Table(("coarse", "fine", "question"), rows())
