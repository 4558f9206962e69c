"""What a local path names: a file as it stands, a folder's files, or the matches of a pattern.

A name that exists is that file or folder, whatever brackets, blanks or tildes are in it; only a
path that doesn't exist is expanded. So patterns may also follow a folder whose name looks like one.
A data folder that the pipeline has made is no input: it is passed over in folders and patterns.
"""
# pathlib changes names (`./`, `//`), and raises for those that are too long.
# ruff: noqa: PTH111, PTH112, PTH113, PTH118, PTH123, PTH207, PTH208

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from urllib.parse import unquote

from fsspec.utils import glob_translate

from pipeline.sources.content import HEAD_BYTES
from pipeline.store import work

_COMPRESSED = (".gz", ".gzip", ".bz2", ".zst", ".zstd", ".xz")
_LEFT_BEHIND = (".", "_")  # hidden files, and what Hadoop and Spark leave: _SUCCESS, _temporary

log = logging.getLogger(__name__)


def local(path: str) -> str:
    """A path as the file system has it: `file://` and a `~` that is no name are resolved."""
    if path.startswith("file://"):
        path = "/" + path.removeprefix("file://").removeprefix("localhost").lstrip("/")
        return path if os.path.lexists(path) else unquote(path, errors="surrogateescape")
    if path.startswith("~") and not os.path.lexists(path):
        return os.path.expanduser(path)
    return path


def match(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """The files that a path or pattern names, sorted; a pattern may name folders, too.

    Raises OSError when a folder can't be listed.
    """
    path = local(path)
    found = [path] if os.path.lexists(path) else list(_glob(path))
    files = [name for name in found if os.path.isfile(name)]
    if not files:
        folders = [name for name in found if os.path.isdir(name)]
        files = [
            name for folder in folders for name in of_kind(_walk(folder, _LEFT_BEHIND), suffixes)
        ]
    return sorted(files)


def of_kind(names: Iterator[str], suffixes: tuple[str, ...]) -> list[str]:
    """Those of a folder's files whose names end as the kind's do; all where none does so."""
    every = list(names)
    return [name for name in every if _uncompressed(name).endswith(suffixes)] or every


def is_left_behind(relative: str) -> bool:
    """Whether a path within a folder leads to a hidden file or to what a program left behind."""
    return any(part.startswith(_LEFT_BEHIND) for part in relative.split("/"))


def _uncompressed(name: str) -> str:
    name = name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return name


def _glob(pattern: str) -> Iterator[str]:
    folder, rest = _existing(pattern)
    if "**" not in rest.split("/"):
        is_data = cache(_is_data_folder)
        for path in glob.iglob(glob.escape(folder) + rest):
            within = accumulate(path.removeprefix(folder).split("/")[:-1], "{}/{}".format)
            if not any(is_data(folder + name) for name in within):
                yield path
        return
    # glob follows a link to a folder above again and again
    is_match = re.compile(glob_translate(rest)).match
    for path in _walk(folder or ".", (".",)):
        path = path if folder else path.removeprefix("./")
        if is_match(path.removeprefix(folder)):
            yield path


def _existing(pattern: str) -> tuple[str, str]:
    """The longest folder that a pattern begins with as it stands, its slash included; the rest."""
    at = len(pattern)
    while (at := pattern.rfind("/", 0, at)) >= 0:
        if os.path.isdir(pattern[: at + 1]):
            return pattern[: at + 1], pattern[at + 1 :]
    return "", pattern


def _walk(
    folder: str, skipped: tuple[str, ...], above: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Files in and below a folder. Links are followed, but to no folder that they stand in."""
    if _is_data_folder(folder):
        log.info("%s: passed over, since the pipeline has made it", folder)
        return
    above |= {os.path.realpath(folder)}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith(skipped):
            continue
        if os.path.isfile(path):
            yield path
        elif os.path.isdir(path) and os.path.realpath(path) not in above:
            yield from _walk(path, skipped, above)


def _is_data_folder(path: str) -> bool:
    def head(name: str) -> bytes:
        with open(os.path.join(path, name), "rb") as file:
            return file.read(HEAD_BYTES)

    return work.is_data_folder(lambda name: os.path.isfile(os.path.join(path, name)), head)
