"""Lines of text or JSON to requests, and the answers to them, many lines at a time."""

import json
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from finetune.errors import FinetuneError
from finetune.serving.answers import Answerer, Request
from finetune.tasks.readers import read_table, text_of
from finetune.text import read_lines

LINES_AT_A_TIME = 1024


class Line(NamedTuple):
    """A request, the number of its line over all input, and its file and line."""

    request: Request
    number: int
    where: str


def read_request(line: str, where: str) -> Request:
    """One line of input; FinetuneError names the file and the line."""
    # Files that were joined have a byte order mark before each one's first line.
    line = line.removeprefix("\ufeff")
    if not line.lstrip().startswith(("{", "[{")):
        text, tab, pair = line.partition("\t")
        return Request(text, pair if tab else None)
    try:
        content = json.loads(line)
        if isinstance(content, list):
            raise ValueError("found a list, expected a JSON object a line")
        unknown = sorted(set(content) - {"text", "pair", "task"})
        if unknown:
            raise ValueError(
                f"unknown key {unknown[0]!r}, expected text, pair, task; other columns are read "
                "with --text_columns"
            )
        text, pair, task = (content.get(key) for key in ("text", "pair", "task"))
        is_words = isinstance(text, list) and all(isinstance(word, str) for word in text)
        if not (isinstance(text, str) or is_words):
            raise ValueError(f"text is {text!r}, expected a string or a list of words")
        for name, value in (("pair", pair), ("task", task)):
            if not isinstance(value, str | None):
                raise ValueError(f"{name} is {value!r}, expected a string")
    except RecursionError:
        raise FinetuneError(f"{where}: nested too deeply, expected a string as text.") from None
    except ValueError as error:
        raise FinetuneError(f"{where}: {error}.") from None
    return Request(text, pair, task)


def read_requests(files: Sequence[Path], columns: Sequence[str] | None = None) -> Iterator[Line]:
    """Every line of `files`, or of standard input if there are none, but for the blank ones.

    With `columns`, those of a text and perhaps its pair, the files are tables.
    """
    if columns is not None:
        yield from _rows_of_tables(files, columns)
        return
    for path in files:
        _refuse_table(path)
    before = 0
    for file in files or (None,):
        name = "standard input" if file is None else str(file)
        # Else the first line of a list, "[", would be a text.
        objects_only = file is not None and {".json", ".jsonl"} & set(file.suffixes)
        number = 0
        for number, line in enumerate(read_lines(file), start=1):
            where = f"{name}, line {number}"
            if not line.strip():
                continue
            if objects_only and not line.lstrip("\ufeff \t").startswith("{"):
                found = f"{line.strip()[:20]!r}, expected a JSON object a line"
                raise FinetuneError(f"{where}: found {found}.")
            yield Line(read_request(line.rstrip("\r\n"), where), before + number, where)
        before += number


def _refuse_table(file: Path) -> None:
    """FinetuneError for a file that is a table by its name: its header is no text to answer."""
    names = {suffix.lower() for suffix in file.suffixes}
    if {".csv", ".tsv"} & names:
        found = ", ".join(read_table(file).columns)
        raise FinetuneError(
            f"{file}: a table of columns {found}; name those of the text, and perhaps its pair, "
            "with --text_columns. Lines without a header belong in a .txt."
        )


def _rows_of_tables(files: Sequence[Path], columns: Sequence[str]) -> Iterator[Line]:
    """A request for each row, by the same readers as training's."""
    if not files or len(columns) > 2:
        raise FinetuneError(
            f"--text_columns {' '.join(columns)}: found {len(files)} files and {len(columns)} "
            "columns, expected files first, then a column of text and perhaps one of its pair."
        )
    before = 0
    for file in files:
        table = read_table(file)
        missing = [name for name in columns if name not in table.columns]
        if missing and table.columns:
            raise FinetuneError(
                f"{file}, line 1: no column {missing[0]!r}; found {', '.join(table.columns)}."
            )
        number = 0
        for where, row in table.rows:
            number = int(where.rpartition(" ")[2])
            try:
                text, *pair = (_cell(row[name]) for name in columns)
                if not isinstance(pair[0] if pair else None, str | None):
                    raise ValueError(f"{columns[1]} is a list, expected a string")
            except ValueError as error:
                raise FinetuneError(f"{file}, {where}: {error}.") from None
            request = Request(text, *pair)  # type: ignore[arg-type]
            yield Line(request, before + number, f"{file}, {where}")
        # A list of records may stand on fewer lines.
        before += max(number, sum(1 for _ in read_lines(file)))


def _cell(value: Any) -> str | list[str]:
    """A text, or its words."""
    return [text_of(word) for word in value] if isinstance(value, list) else text_of(value)


def answers(answerer: Answerer, lines: Iterable[Line]) -> Iterator[dict[str, Any]]:
    """Answers in the order of the lines, computed for many lines at a time."""
    pending: list[Line] = []

    def flush() -> Iterator[dict[str, Any]]:
        each = 1 if answerer.ensemble else len(answerer.readouts)
        numbers = [line.number for line in pending for _ in range(1 if line.request.task else each)]
        found = answerer.answer([line.request for line in pending])
        for number, answer in zip(numbers, found, strict=True):
            yield {"line": number, **json_values(answer)}

    for line in lines:
        try:
            answerer.check(line.request)
        except FinetuneError as error:
            raise FinetuneError(f"{line.where}: {error}") from None
        pending.append(line)
        if len(pending) == LINES_AT_A_TIME:
            yield from flush()
            pending = []
    yield from flush()
    answerer.warn_of_cut_texts()


def json_values(answer: dict[str, Any]) -> dict[str, Any]:
    """`answer` without NaN and infinity, which JSON hasn't got: what a diverged model answers.

    Its score is null, and so are its probabilities and the label that they would decide.
    """
    values = [answer.get("score"), *answer.get("probabilities", {}).values()]
    if all(value is None or isfinite(value) for value in values):
        return answer
    blank = dict.fromkeys(answer.get("probabilities", {}))
    return {
        key: {"probabilities": blank, "score": None, "label": None}.get(key, value)
        for key, value in answer.items()
    }
