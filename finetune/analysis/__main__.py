"""`python -m finetune.analysis FIGURE`: the command line of the figures."""

import logging
import sys

from jsonargparse import ArgumentParser

from finetune.analysis import tsne
from finetune.console import set_up
from finetune.errors import FinetuneError


def make_parser() -> ArgumentParser:
    """One subcommand per figure; its flags are the fields of the figure's dataclass."""
    parser = ArgumentParser(prog="python -m finetune.analysis", description=__doc__)
    figures = parser.add_subcommands(dest="figure")
    one = ArgumentParser(description=tsne.__doc__)
    one.add_class_arguments(tsne.TsneFigure)
    figures.add_subcommand("tsne", one)
    return parser


def main(command: list[str]) -> None:
    """Draw the figure that `command` names."""
    chosen = make_parser().parse_args(command)
    for path in tsne.draw(tsne.TsneFigure(**chosen[chosen.figure].as_dict())):
        logging.info("wrote %s", path)


if __name__ == "__main__":
    set_up()
    try:
        main(sys.argv[1:])
    except FinetuneError as error:
        print(f"finetune.analysis: {error}", file=sys.stderr)
        sys.exit(2)
