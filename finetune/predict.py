"""`python -m finetune.predict`: texts to JSON lines, by a finetuned model or by masks.

    python -m finetune.predict --model_name_or_path RUN FILE…          a finetuned model
    python -m finetune.predict FILE… --masks MASK…                     masks on one backbone

Input is lines, from files or standard input: a text; or a text, a tab and a second text; or a JSON
object with "text" (a string, or a list of words for tagging), and optionally "pair" and "task".
Tables, as `finetune.glue` takes them, need --text_columns: predict dev.csv --text_columns text …
A line without a task is answered by every task, a blank line by none. Input is UTF-8, or UTF-16
with its mark, perhaps gzipped. Output is one JSON object per answer, in order, with "line", the
number of its line (of its record, in a JSON list) over all input.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from finetune.choices import VOTES
from finetune.console import CommandParser, positive, run
from finetune.errors import FinetuneError


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """What `predict` and `serve` both take."""
    parser.add_argument(
        "--model_name_or_path",
        help="a finetuned model, or the folder of a LoRA, BitFit or probe job; with --masks, the "
        "backbone",
    )
    parser.add_argument(
        "--base_model_name_or_path", help="the backbone of such a job; default: the one it names"
    )
    parser.add_argument("--masks", type=Path, nargs="+", default=[], help="folders of masks")
    parser.add_argument("--ensemble", choices=VOTES, help="all masks vote on each line")
    parser.add_argument(
        "--max_length",
        type=positive,
        help="in tokens; default: that of training, the longest of several, or 128 where it isn't "
        "stored",
    )
    parser.add_argument("--batch_size", type=positive, default=32)
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")


def main(command: Sequence[str]) -> None:
    """Run the command line `command` (without the program's name)."""
    parser = CommandParser(prog="python -m finetune.predict", description=__doc__)
    add_model_flags(parser)
    parser.add_argument("files", type=Path, nargs="*", help="default: standard input")
    parser.add_argument(
        "--text_columns",
        nargs="+",
        metavar="COLUMN",
        help="the files are tables (.csv, .tsv, .json, .jsonl): the column of their text, or of "
        "words for tagging, and perhaps that of its pair",
    )
    args = parser.parse_intermixed_args(command)
    missing = [str(file) for file in args.files if not file.is_file()]
    if missing:
        raise FinetuneError(f"No file {', '.join(missing)}.")
    from finetune.serving.lines import answers, read_requests
    from finetune.serving.models import load

    answerer = load(args)
    for answer in answers(answerer, read_requests(args.files, args.text_columns)):
        print(json.dumps(answer, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    run("predict", main)
