"""`python -m finetune.analysis FIGURE`: the command line of the figures."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from finetune.analysis import FIGURES
from finetune.console import run
from finetune.errors import FinetuneError

USAGE = "usage: python -m finetune.analysis FIGURE [flags]; FIGURE --help lists its flags\n"


def main(command: Sequence[str]) -> None:
    """Draw the figure that `command` names."""
    if not command or command[0] in ("-h", "--help"):
        print(USAGE, *(f"  {name:14} {about}" for name, about in FIGURES.items()), sep="\n")
        return
    name, *words = command
    if name not in FIGURES:
        near = get_close_matches(name, FIGURES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise FinetuneError(f"{name}: no such figure.{hint} There are: {', '.join(FIGURES)}.")
    import_module(f"finetune.analysis.{name}").main(words)


if __name__ == "__main__":
    run("analysis", main, resumable=True)
