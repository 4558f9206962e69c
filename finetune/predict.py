"""`python -m finetune.predict`: texts to JSON lines, by a finetuned model or by masks.

    python -m finetune.predict --model_name_or_path RUN FILE…          a finetuned model
    python -m finetune.predict FILE… --masks MASK…                     masks on one backbone

Input is lines, from files or standard input: a text; or a text, a tab and a second text; or a JSON
object with "text" (a string, or a list of words for tagging), and optionally "pair" and "task".
A line without a task is answered by every task, a blank line by none. Input is UTF-8, or UTF-16
with its mark, perhaps gzipped. Output is one JSON object per answer, in order, with "line", the
number of its line over all input.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig

from finetune.answers import KINDS, Answerer, Request, Separate
from finetune.console import set_up
from finetune.ensemble import VOTES
from finetune.errors import FinetuneError
from finetune.jobs.load import settings_of
from finetune.masks.folder import MaskFolder
from finetune.masks.resident import Resident
from finetune.tasks.encode import Backbone
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
        each = 1 if answerer.ensemble else len(answerer.heads)
        numbers = [line.number for line in pending for _ in range(1 if line.request.task else each)]
        found = answerer.answer([line.request for line in pending])
        for number, answer in zip(numbers, found, strict=True):
            yield {"line": number, **answer}

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


def load(args: argparse.Namespace) -> Answerer:
    """The models the command line names, checked and in memory."""
    if args.masks:
        files = [str(path) for path in args.masks if path.is_file()]
        if files:
            raise FinetuneError(
                f"--masks: {', '.join(files)}: a file, expected a folder. Name input files first."
            )
        folders = [MaskFolder.open(path) for path in args.masks]
        name = args.model_name_or_path or folders[0].config.base_model_name_or_path
        if name is None:
            raise FinetuneError("The masks name no backbone: give --model_name_or_path.")
        backbone = Backbone.load(name)
        models: Resident | Separate = Resident(name, folders, args.device)
    elif args.model_name_or_path is None:
        raise FinetuneError("Give --model_name_or_path, or --masks, or both.")
    else:
        name = args.model_name_or_path
        backbone = Backbone.load(name)
        made_for = (AutoConfig.from_pretrained(name).architectures or ["nothing"])[0]
        kind = made_for.rpartition("For")[2]
        if kind not in KINDS:
            raise FinetuneError(
                f"{name}: a {made_for}, expected a finetuned model. For a mask, name its folder "
                "with --masks and the backbone with --model_name_or_path."
            )
        model = KINDS[kind].from_pretrained(name).eval().to(args.device)
        folder = Path(name)
        models = Separate({settings_of(folder).get("task", folder.name): model})
    return Answerer(models, backbone, args.max_length, args.batch_size, args.ensemble)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """What `predict` and `serve` both take."""
    parser.add_argument("--model_name_or_path", help="finetuned model; with --masks, the backbone")
    parser.add_argument("--masks", type=Path, nargs="+", default=[], help="folders of masks")
    parser.add_argument("--ensemble", choices=VOTES, help="all masks vote on each line")
    parser.add_argument("--max_length", type=int, default=128, help="in tokens")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def main(command: Sequence[str]) -> None:
    """Run the command line `command` (without the program's name)."""
    parser = argparse.ArgumentParser(
        prog="python -m finetune.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_flags(parser)
    parser.add_argument("files", type=Path, nargs="*", help="default: standard input")
    args = parser.parse_intermixed_args(command)
    missing = [str(file) for file in args.files if not file.is_file()]
    if missing:
        raise FinetuneError(f"No file {', '.join(missing)}.")
    answerer = load(args)
    for answer in answers(answerer, read_requests(args.files)):
        print(json.dumps(answer, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    set_up()
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # as JSON is, anywhere
    try:
        main(sys.argv[1:])
    except FinetuneError as error:
        print(f"finetune.predict: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
