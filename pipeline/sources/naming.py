"""What files and documents are called: names that are unique, and the same in every run.

A document's split, its position in the shards and whether a `weight` below 1 keeps it follow from
its id alone. Ids that a data set brings are often none: null, empty, constant, or counted again in
each part. So an id counts once: a document with none of its own is named by where it stands, and
one whose id was met before in its file (or its part of a large file) by both.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import takewhile
from typing import Any

_REMEMBERED = 200_000  # ids, twice as many at most: some 40 MB


def file_names(label: str, paths: list[str]) -> dict[str, str]:
    """The name of each file or data set of a source, which its documents' ids begin with.

    It is LABEL/BASENAME; of those with one basename it is LABEL and the path from the folder on in
    which they part. So it depends on neither their order nor the folder that all of them are in.
    """
    same: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for path in paths:
        parts = [part for part in path.split("/") if part]
        same[parts[-1]].append((path, parts))
    return {
        path: printable("/".join([label, *parts[_shared(group) :]]))
        for group in same.values()
        for path, parts in group
    }


def _shared(group: list[tuple[str, list[str]]]) -> int:
    """How many folders all paths of a group begin with."""
    folders = zip(*(parts[:-1] for _, parts in group), strict=False)
    return sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))


class Ids:
    """The ids of the documents of a file or a part of one, asked for in its order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._recent: set[str] = set()
        self._older: set[str] = set()

    def of(self, own: Any, place: str) -> str:
        """NAME:OWN; or NAME and `place`, or all three, where `own` is no id or isn't the first.

        Args:
            own: what the record has for an id, of any type.
            place: where it stands in the file, `:LINE` or `@BYTE:LINE`: unique there.
        """
        is_missing = own is None or (isinstance(own, float) and math.isnan(own))
        key = "" if is_missing else str(own)
        if not key.strip():
            return self._name + place
        key = printable(key)
        is_first = key not in self._recent and key not in self._older
        if key not in self._recent and len(self._recent) == _REMEMBERED:
            self._older, self._recent = self._recent, set()
        self._recent.add(key)
        return f"{self._name}:{key}" if is_first else f"{self._name}:{key}{place}"


def printable(text: str) -> str:
    """A text with what UTF-8 has no bytes for (surrogates, of odd file names, say) written out."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
