"""Files behind URLs, through fsspec; imported only where there is one.

The environment says how to reach them (AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS,
FSSPEC_S3_ANON, …), so driver and workers, which have the same, find the same. A file system is
asked for again each time: fsspec keeps it for the process, and a fork must not use its parent's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any, cast

import fsspec
from fsspec.core import url_to_fs

from pipeline.errors import PipelineError
from pipeline.sources import content, paths
from pipeline.store import work

_BLOCK_BYTES = 8 << 20  # one request
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def match(url: str, suffixes: tuple[str, ...]) -> list[tuple[str, int]]:
    """(URL, bytes) of what a URL or a pattern of URLs names; -1 where the size isn't known.

    Raises:
        PipelineError: the file system can't be reached, or isn't known.
    """
    system, path = _system(url)
    try:
        found = list(_files(system, path, suffixes))
    except PipelineError:
        raise
    except Exception as error:  # every file system has its own
        raise unreachable(url, error) from error
    _, chained, outer = url.partition("::")
    return sorted(
        (system.unstrip_protocol(name) + chained + outer, -1 if size is None else int(size))
        for name, size in found
    )


def size(url: str) -> int:
    """Bytes of one file; -1 where that isn't known. Raises what the file system does."""
    system, path = _system(url)
    found = system.info(path)["size"]
    return -1 if found is None else int(found)


def open_raw(url: str) -> IO[bytes]:
    """The bytes behind a URL as they are stored."""
    system, path = _system(url)
    block_bytes = _BLOCK_BYTES if has_ranges(url) else 0  # 0: from the beginning to the end
    return cast(IO[bytes], system.open(path, "rb", block_size=block_bytes))


@lru_cache(1024)
def has_ranges(url: str) -> bool:
    """Whether the server sends parts of a file: simple ones of HTTP send it as a whole."""
    system, path = _system(url)
    if "http" not in system.protocol:
        return True
    with system.open(path, "rb", block_size=2) as file:
        try:
            file.seek(1)
            file.read(1)
        except ValueError:  # what fsspec raises when it gets another part than it asked for
            return False
    return True


def unreachable(url: str, error: Exception) -> PipelineError:
    """The one line about whatever a file system has raised."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return PipelineError(
        f"{url}: can't be read ({text}); check the name, and the environment that says how to "
        "reach it (AWS_ENDPOINT_URL, credentials, …)"
    )


def _system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    scheme = url.partition("://")[0]
    try:
        # Listings that are kept would hide what has changed since.
        system, path = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f"pip install 'latemask[{extra}]'" if extra else str(error)
        raise PipelineError(f"{url}: {scheme}:// needs another package: {remedy}") from error
    except ValueError as error:
        raise PipelineError(f"{url}: fsspec has no {scheme}:// ({error})") from error
    return system, path


def _files(
    system: fsspec.AbstractFileSystem, path: str, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, int | None]]:
    """(name, bytes) of the file of this name, of those in this folder, or of a pattern's."""
    try:
        entry = system.info(path)
        found = {entry["name"]: entry}
    except FileNotFoundError:
        found = system.glob(path, detail=True) if set(path) & set("*?[") else {}
    files = {name: entry["size"] for name, entry in found.items() if entry["type"] == "file"}
    if not files:
        for folder in found:
            files |= _below(system, folder, suffixes)
    yield from files.items()


def _below(
    system: fsspec.AbstractFileSystem, folder: str, suffixes: tuple[str, ...]
) -> dict[str, Any]:
    below = system.find(folder, detail=True)
    folders = {f"{folder.rstrip('/')}/", *(f"{name.rpartition('/')[0]}/" for name in below)}
    made = tuple(each for each in folders if _is_data_folder(system, each, below))
    shown = (
        name
        for name in below
        if not name.startswith(made) and not paths.is_left_behind(name[len(folder) :].lstrip("/"))
    )
    return {name: below[name]["size"] for name in paths.of_kind(shown, suffixes)}


def _is_data_folder(system: fsspec.AbstractFileSystem, folder: str, names: dict[str, Any]) -> bool:
    return work.is_data_folder(
        lambda name: folder + name in names,
        lambda name: system.cat_file(folder + name, end=content.HEAD_BYTES),
    )
