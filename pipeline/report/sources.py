"""What became of the documents of each source: a table to read, and what should alarm a reader."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import Config
from pipeline.report.balance import fates
from pipeline.sources.records import Chunk
from pipeline.store import dropped, pieces
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder

_SHOWN = 15  # sources by name; the rest is summed up
_COLUMNS = 100
_LITTLE = 0.1  # of the documents that could be kept
# The key that decides how many documents are dropped for a reason; `cleaning` for all others.
_KEYS = {
    "unreadable": "sources[{}].kind, text_key",
    "redirect": "sources[{}].kind",
    "not_article": "sources[{}].kind",
    "too_short": "cleaning.min_characters",
    "not_prose": "cleaning.min_alphabetic",
    "repetitive": "cleaning.repetition",
    "other_language": "cleaning.languages",
    "not_sampled": "sources[{}].weight",
    "contaminated": "decontamination.overlap",
    "duplicate": "sources: of equal texts one is kept",
    "near_duplicate": "near_duplicates.threshold",
}
_NO_LOSS = ("not_sampled", "redirect", "not_article")  # asked for, or no document by its form


@dataclass
class Outcome:
    """Of one source: documents read, kept, and dropped by reason; records that are unreadable.

    A long document is kept or dropped in parts: `further_parts` more than were read.
    """

    name: str
    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unreadable: int | None = None  # None: not known by source
    first_unreadable: str = ""  # where and why
    further_parts: int = 0
    fruitless: int = 0  # files, or parts of files, of which nothing could be read
    first_fruitless: str = ""

    def reasons(self) -> list[tuple[str, int]]:
        """What documents were lost for, most first."""
        lost = self.dropped + Counter(unreadable=self.unreadable or 0)
        return sorted(lost.items(), key=lambda item: (-item[1], item[0]))


def outcomes(folder: Folder, config: Config, chunks: list[Chunk]) -> list[Outcome] | None:
    """The outcome of every source of the config; None while a chunk isn't cleaned yet.

    Duplicates count as kept until deduplication has found them.
    """
    found = [Outcome(source.label, unreadable=0) for source in config.sources]
    for chunk in chunks:
        outcome = found[chunk.source]
        facts = pieces.read_chunk(folder, chunk.index, check=False)
        if facts is None:
            return None
        outcome.unreadable = (outcome.unreadable or 0) + facts["rejected"]
        outcome.fruitless += facts["fruitless"]["files"]
        if facts["fruitless"]["first"] and not outcome.first_fruitless:
            outcome.first_fruitless = _told(facts["fruitless"]["first"])
        if facts["rejected"] and not outcome.first_unreadable:
            lines = folder.read(pieces.rejected_name(chunk.index)).split(b"\n", 1)
            outcome.first_unreadable = _told(json.loads(lines[0]))
        for counts in facts["counts"].values():
            outcome.read += counts.get("read", 0)
            outcome.further_parts += counts.get("further_parts", 0)
            outcome.kept += counts.get("clean", 0)
            outcome.dropped.update({k: n for k, n in fates(counts).items() if k != "clean"})
    for reason in dropped.reasons(config):
        if folder.exists(dropped.name(reason)):
            catalog = Catalog.load(folder)
            marks = dropped.marks(folder, reason)
            for piece in range(len(catalog)):
                outcome = found[chunks[catalog.array["chunk"][piece]].source]
                number = int(marks[catalog.numbers(piece)].sum())
                outcome.dropped[reason] += number
                outcome.kept -= number
    return found


def largest(outcomes: list[Outcome]) -> list[Outcome]:
    """Sources with most documents first, those beyond 15 as one."""
    ordered = sorted(outcomes, key=lambda outcome: (-outcome.read, outcome.name))
    shown = ordered[:_SHOWN]
    if others := ordered[_SHOWN:]:
        known = [outcome.unreadable for outcome in others if outcome.unreadable is not None]
        shown.append(
            Outcome(
                f"{len(others)} others",
                read=sum(outcome.read for outcome in others),
                further_parts=sum(outcome.further_parts for outcome in others),
                kept=sum(outcome.kept for outcome in others),
                dropped=sum((outcome.dropped for outcome in others), Counter()),
                unreadable=sum(known) if known else None,
            )
        )
    return shown


def table(outcomes: list[Outcome]) -> str:
    """The largest sources, a row each, in at most 100 columns."""
    known = any(outcome.unreadable is not None for outcome in outcomes)
    unreadable = f" {'unreadable':>11}" if known else ""
    lines = [f"{'source':20} {'read':>13} {'kept':>13}{unreadable}  dropped"]
    for outcome in largest(outcomes):
        row = f"{outcome.name[:20]:20} {outcome.read:13,} {outcome.kept:13,}"
        if known:
            row += f" {outcome.unreadable or 0:11,}"
        row += "  "
        reasons = [f"{n:,} {reason}" for reason, n in outcome.reasons() if reason != "unreadable"]
        dropped = ", ".join(reasons) or "none"
        if outcome.further_parts:
            dropped += f" (of {outcome.read + outcome.further_parts:,} parts)"
        wrapped = textwrap.wrap(dropped, _COLUMNS - len(row))
        lines.append(row + wrapped[0])
        lines += [" " * len(row) + more for more in wrapped[1:]]
    return "\n".join(lines)


def alarms(outcomes: list[Outcome], config: Config) -> Iterator[str]:
    """A line for each source of which nothing or little is kept, or no record of some file read."""
    for position, outcome in enumerate(outcomes):
        unreadable = outcome.unreadable or 0
        read = outcome.read + outcome.further_parts + unreadable
        possible = read - sum(outcome.dropped[key] for key in _NO_LOSS)
        if outcome.kept > _LITTLE * possible and outcome.kept > 0:
            if outcome.fruitless:
                yield (
                    f"source {outcome.name!r}: no record of {outcome.fruitless:,} of its files is "
                    f"readable ({_key('unreadable', position, config)}), the first is "
                    f"{outcome.first_fruitless}"
                )
            continue
        what = "records" if unreadable else "documents"  # a record is one once it is read
        line = f"source {outcome.name!r}: {outcome.kept:,} of {read:,} {what} are kept"
        if not outcome.reasons():
            yield f"{line}; see sources[{position}].paths and kind: its files hold none"
            continue
        reason, count = outcome.reasons()[0]
        line += f"; {count:,} are {reason} ({_key(reason, position, config)})"
        if reason == "unreadable":
            line += f", the first is {outcome.first_unreadable}"
        yield line


def _told(record: dict[str, str]) -> str:
    return f"{record['where']}: {record['reason']}"


def _key(reason: str, position: int, config: Config) -> str:
    """The key that decides, with its value where that is short."""
    key = _KEYS.get(reason, "cleaning").format(position)
    if key.startswith("sources") or "." not in key:
        return key
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name, None)
    return f"{key}: {value}" if isinstance(value, int | float | list) else key
