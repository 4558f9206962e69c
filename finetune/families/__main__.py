"""`python -m finetune.families [MODEL_TYPE…]`: which transformers take which method, by trying.

Every encoder family of the installed transformers, and some decoders, is made at a tiny size; each
method trains it for one step, stores what it learned and loads it again, merged into the base. The
predictions have to be those of the model that was trained. Prints a Markdown table, a row as soon
as it is known; docs/masks.md holds it.
"""

from collections.abc import Sequence

from finetune.console import CommandParser, run


def main(command: Sequence[str]) -> None:
    """Print the table for the model types of `command`, or for all."""
    parser = CommandParser(prog="python -m finetune.families", description=__doc__)
    parser.add_argument("model_types", nargs="*", metavar="MODEL_TYPE", help="default: all")
    names = parser.parse_args(command).model_types
    from finetune.families.trial import print_table

    print_table(names)


if __name__ == "__main__":
    run("families", main)
