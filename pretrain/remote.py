"""A data set at a URL (`s3://`, `gs://`, `hf://`, `https://` ...), copied into a local cache.

An epoch is one shuffle of all sequences, so the first step may need any shard: all are fetched
before it, several at a time, and stay. The cache is named after what the manifest says of the data,
so another data set at the same URL is another copy, and an interrupted copy is continued with the
files that are missing.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
from tqdm import tqdm

from pretrain.errors import PretrainError
from pretrain.manifest import TOKENIZER_FILES, content_sha256, parse_manifest

logger = logging.getLogger(__name__)

PARALLEL = 8


def is_remote(path: str) -> bool:
    """Whether `path` is a URL rather than a folder."""
    return "://" in path


def local_copy(url: str, cache_dir: Path) -> Path:
    """The folder below `cache_dir` that holds what is at `url`; fetches what it lacks.

    Processes of one machine may call this at once: one fetches, the others wait for it.

    Raises:
        PretrainError: `url` can't be read, has no manifest, or one that is refused (before anything
            is fetched or written).
    """
    filesystem, root = fsspec.url_to_fs(url)
    try:
        content: bytes = filesystem.cat_file(f"{root}/manifest.json")
    except Exception as error:  # each filesystem has exceptions of its own
        raise PretrainError(
            f"data.path: {url}/manifest.json can't be read ({type(error).__name__}: {error}); "
            "check the address and the credentials, or finish the pipeline run that writes it"
        ) from None
    manifest = parse_manifest(content, f"{url}/manifest.json")
    folder = cache_dir.expanduser() / content_sha256(content)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "manifest.json").exists():
            return folder
        sizes: dict[str, int | None] = {
            shard["name"]: shard["bytes"]
            for split in manifest["splits"].values()
            for shard in split["shards"]
        }
        sizes |= {name: None for name in TOKENIZER_FILES if filesystem.exists(f"{root}/{name}")}
        missing = [name for name, size in sizes.items() if not _is_there(folder / name, size)]
        logger.info("fetching %d files of %s into %s", len(missing), url, folder)
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as pool:
            jobs = pool.map(
                lambda name: _fetch(filesystem, f"{root}/{name}", folder / name), missing
            )
            for _ in tqdm(jobs, total=len(missing), unit="file", desc="fetch"):
                pass
        _store(folder / "manifest.json", lambda partial: partial.write_bytes(content))
    return folder


def _is_there(file: Path, size: int | None) -> bool:
    return file.exists() and size in (None, file.stat().st_size)


def _fetch(filesystem: fsspec.AbstractFileSystem, source: str, file: Path) -> None:
    try:
        _store(file, lambda partial: filesystem.get_file(source, str(partial)))
    except Exception as error:
        raise PretrainError(
            f"{source} can't be fetched ({type(error).__name__}: {error}); "
            "the same command fetches the files that are missing"
        ) from None


def _store(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `file`, then rename it, whole."""
    partial = file.with_name(f".{file.name}.partial")
    write(partial)
    with partial.open("rb+") as stream:
        os.fsync(stream.fileno())
    partial.replace(file)
