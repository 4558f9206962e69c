"""Lines of text or JSON to requests, and the answers to them, many lines at a time."""

import json
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from finetune.errors import FinetuneError
from finetune.serving.answers import Answerer, Request
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
            raise ValueError(f"unknown key {unknown[0]!r}, expected text, pair, task")
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


def read_requests(files: Sequence[Path]) -> Iterator[Line]:
    """Every line of `files`, or of standard input if there are none, but for the blank ones."""
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
