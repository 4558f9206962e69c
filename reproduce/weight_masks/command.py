"""`python -m reproduce weight_masks FIGURE`: the command line of the figures."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from finetune.errors import FinetuneError
from reproduce.weight_masks import FIGURES

USAGE = "usage: python -m reproduce weight_masks FIGURE [flags]; FIGURE --help lists its flags\n"


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
    import_module(f"reproduce.weight_masks.{name}").main(words)
