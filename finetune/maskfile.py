"""`python -m finetune.maskfile`: look into mask folders, compare, convert and merge them.

info FOLDER…              what it is, its sparsity by layer, its size against the entropy bound
diff FOLDER FOLDER        share of bits that differ, by layer
convert FOLDER OUTPUT     the same mask in another encoding (--encoding bits|gaps)
merge FOLDER OUTPUT       a plain Hugging Face model with the mask applied (needs the backbone)
"""

from collections.abc import Sequence
from pathlib import Path

from finetune.choices import ENCODINGS
from finetune.console import CommandParser, run
from finetune.errors import FinetuneError


def main(command: Sequence[str]) -> None:
    """Run the command line `command` (without the program's name)."""
    parser = CommandParser(prog="python -m finetune.maskfile", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info").add_argument("folders", type=Path, nargs="+")
    commands.add_parser("diff").add_argument("folders", type=Path, nargs=2)
    converting = commands.add_parser("convert")
    converting.add_argument("--encoding", choices=ENCODINGS, default=ENCODINGS[0])
    merging = commands.add_parser("merge")
    merging.add_argument("--model_name_or_path", help="default: the backbone the mask names")
    for sub in (converting, merging):
        sub.add_argument("folders", type=Path, nargs=1, metavar="folder")
        sub.add_argument("output", type=Path)
    args = parser.parse_args(command)
    from finetune.masks.folder import MaskFolder
    from finetune.masks.report import diff, info, merge

    folders = [MaskFolder.open(path) for path in args.folders]
    output: Path = getattr(args, "output", Path())
    if args.command in ("convert", "merge") and output.exists() and any(output.iterdir()):
        raise FinetuneError(f"{output} isn't empty; name another folder.")
    if args.command == "info":
        print(*info(folders), sep="\n")
    elif args.command == "diff":
        print(*diff(*folders), sep="\n")
    elif args.command == "convert":
        folders[0].convert(output, args.encoding)
        print(f"{output}: {folders[0].name}, as {args.encoding}")
    else:
        print(merge(folders[0], output, args.model_name_or_path))


if __name__ == "__main__":
    run("maskfile", main)
