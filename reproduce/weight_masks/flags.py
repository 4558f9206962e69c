"""A figure's command: its own flags, and beside them every flag of `python -m finetune.glue`.

A `--config` file is one of `finetune.glue`'s. Its section `figures: {sparsity: {...}, ...}` holds
flags for one figure only, of both kinds; they win over the rest of the file, and the command line
wins over them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from finetune.errors import FinetuneError
from finetune.jobs.arguments import Layers, Parser, flag_names, make_parser, unknown_flag, words_of
from reproduce.weight_masks import FIGURES

GLUE_FLAGS = (
    "All flags of `python -m finetune.glue` (its --help lists them) choose model, data, tasks, "
    "seeds and training; so does --config FILE, whose section `figures` holds flags by figure."
)


@dataclass
class FigureFlags:
    """What every figure takes."""

    output_dir: Path = field(metadata={"help": "folder for NAME.png, NAME.csv and NAME.json"})


@dataclass
class RunFlags(FigureFlags):
    """What the figures of finished runs take."""

    runs: Path | None = field(
        default=None,
        metadata={
            "help": "output folder of `finetune.glue` with the finished runs; without it they are "
            "trained first, in OUTPUT_DIR/runs, as far as they aren't there"
        },
    )


Own = TypeVar("Own", bound=FigureFlags)


def read_command(
    figure: str, own: type[Own], command: Sequence[str], about: str | None
) -> tuple[Own, list[str]]:
    """The flags of `own`, and the words left for `jobs.plan.make_plan`, --config among them.

    FinetuneError for a flag that neither knows, wherever it stands.
    """
    parser = Parser(
        (own,),  # type: ignore[arg-type]
        prog=f"python -m reproduce weight_masks {figure}",
        description=about,
        epilog=GLUE_FLAGS,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help="YAML file of flags")
    known = make_parser(own)
    config = parser.parse_known_args(["--output_dir", ".", *command])[0].config
    sections = Layers.read(config, make_parser()).figures
    wrong = sorted(set(sections) - set(FIGURES))
    if wrong:
        raise FinetuneError(f"{config}, figures: found {wrong}, expected {', '.join(FIGURES)}.")
    section = words_of(sections.get(figure, {}), f"{config}, figures.{figure}", known)
    for word in command:
        name = word.partition("=")[0]
        if name.startswith("--") and name.removeprefix("--") not in flag_names(known):
            raise FinetuneError(f"command line: {unknown_flag(name, known)}")
    values, rest = parser.parse_known_args([*section, *command])
    flags = own(**{f.name: getattr(values, f.name) for f in fields(own)})
    return flags, [*(("--config", str(config)) if config else ()), *rest]
