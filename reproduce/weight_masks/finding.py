"""What a figure leaves behind: a picture, the numbers in it, and what is seen in one line.

NAME.png, NAME.csv and, written last, NAME.json: the `Finding`, one flat object of strings, from
which the documentation takes its row. A folder without NAME.json holds an unfinished figure.
"""

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from finetune.files import write_figure, write_json, write_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One claim of the paper and what came out here.

    `claim` is the paper's, in our words; `paper` says where it stands, with its values; `ours` is
    what is seen, with its figures; `setting` the model, the tasks with their training rows, the
    seeds; `verdict` what the figure's own rule makes of it (`verdict`), and `rule` that rule.
    """

    figure: str
    claim: str
    paper: str
    ours: str
    setting: str
    rule: str
    verdict: str


def verdict(holds: Iterable[bool | None]) -> str:
    """`agrees` if the claim holds in every part, `disagrees` if in none, else `undecided`.

    A part is mostly a task; None is one that decides nothing.
    """
    found = set(holds)
    if found == {True}:
        return "agrees"
    return "disagrees" if found == {False} else "undecided"


def publish(
    folder: Path, finding: Finding, rows: Sequence[Mapping[str, Any]], picture: Figure
) -> None:
    """Write the three files; each is whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / finding.figure
    write_figure(stem.with_suffix(".png"), picture)
    write_text(stem.with_suffix(".csv"), to_csv(rows))
    write_json(stem.with_suffix(".json"), asdict(finding))
    logger.info("%s.png, .csv, .json: %s; %s", stem, finding.ours, finding.verdict)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per row, columns as in the first one; numbers to six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()
