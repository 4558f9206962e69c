"""What a data folder holds while it is made, and the rules by which it may be touched.

`OUTPUT/.work` keeps the config and the plan of the run, the cleaned documents and the tokens of
every chunk, and a receipt beside each finished file. Every file is written under a temporary name
and renamed, so whatever is there is whole, and a killed run goes on behind the last receipt.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import Config, differing_keys
from pipeline.errors import PipelineError

WORK = ".work"
MANIFEST = "manifest.json"
_SHARDS = ("train-*-of-*.tar", "valid-*-of-*.tar")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_LEFTOVERS = (*_SHARDS, *_TOKENIZER, "rejected.jsonl", "dropped.json", "*.tmp")
_FOLDERS = ("tasks", "seq-*")


def write_atomic(path: Path, content: bytes) -> None:
    """Put `content` at `path`: all of it, or nothing of it. PipelineError when the disk refuses."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise PipelineError(
            f"{path}: can't be written ({error.strerror}). Make room or rights there and run the "
            "same command again: it goes on from what is finished"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """`write_atomic`, readable, keys in the order given."""
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_certified(path: Path, content: bytes, **facts: Any) -> dict[str, Any]:
    """`write_atomic`, then a receipt beside it; returns that: `facts`, bytes and sha256."""
    write_atomic(path, content)
    digest = hashlib.sha256(content).hexdigest()
    receipt = {**facts, "bytes": len(content), "sha256": digest}
    write_json(receipt_path(path), receipt)
    return receipt


def read_receipt(path: Path, check: bool = True) -> dict[str, Any] | None:
    """The receipt of a finished file; None when it has none, or (`check`) is not as certified."""
    try:
        receipt = json.loads(receipt_path(path).read_text())
        if check and file_sha256(path) != receipt["sha256"]:
            return None
    except FileNotFoundError:
        return None
    return receipt


def receipt_path(path: Path) -> Path:
    """File that certifies the one at `path`."""
    if WORK in path.parts:
        return path.with_name(f"{path.name}.receipt.json")
    folder = next(parent for parent in path.parents if (parent / WORK).exists())
    return folder / WORK / "shards" / f"{path.relative_to(folder)}.receipt.json"


def sum_path(folder: Path, stage: str) -> Path:
    """File of what a stage has counted in all; there when it has ended."""
    return folder / WORK / "sums" / f"{stage}.json"


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a data folder for this process; PipelineError when another one holds it.

    The operating system releases the lock when the process ends, however it ends.
    """
    work = folder / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        opened = (work / "lock").open("a+")
    except OSError as error:
        raise PipelineError(
            f"{folder}: can't be written ({error.strerror}); choose another --output"
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise PipelineError(
                f"{folder}: another run is writing this folder (process {file.read().strip()}); "
                "wait for it, or choose another --output"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def check_ownership(folder: Path) -> None:
    """PipelineError when `folder` holds something that no run of ours began."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PipelineError(f"{folder}: a file; --output must name a folder")
    names = sorted(p.name for p in folder.iterdir())
    if names and MANIFEST not in names and WORK not in names:
        raise PipelineError(
            f"{folder}: holds files that this program didn't write ({', '.join(names[:5])}"
            f"{', …' if len(names) > 5 else ''}); choose an empty --output"
        )


def beside(folder: Path) -> Path:
    """Where a finished folder is made anew, so that the old one stays until then."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.new")


def replace(folder: Path) -> None:
    """Put the finished folder that lies beside `folder` in its place."""
    new, old = beside(folder), beside(folder).with_suffix(".old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Finish a `replace` that was killed half way."""
    new, old = beside(folder), beside(folder).with_suffix(".old")
    if not folder.exists() and old.exists() and (new / MANIFEST).exists():
        new.rename(folder)
    if folder.exists() and old.exists():
        shutil.rmtree(old)


def is_of(folder: Path, config: Config) -> bool:
    """Whether an unfinished folder was begun with `config`."""
    begun = load_json(folder / WORK / "config.json")
    return begun == config.content() and not (folder / MANIFEST).exists()


def begin(folder: Path, config: Config, overwrite: bool) -> dict[str, Any] | None:
    """Claim a locked folder for `config`; the manifest, if a run with it has finished here.

    Raises PipelineError when the folder belongs to another config and `overwrite` is not set.
    """
    if overwrite:
        _clear(folder)
    manifest = load_json(folder / MANIFEST)
    begun = manifest["config"] if manifest else load_json(folder / WORK / "config.json")
    if begun is None:
        write_json(folder / WORK / "config.json", config.content())
    elif begun != config.content():
        keys = "\n  ".join(differing_keys(config.content(), begun))
        raise PipelineError(
            f"{folder}: {'finished' if manifest else 'begun'} with another config (there -> now):"
            f"\n  {keys}\nChoose another --output, or pass --overwrite to make it anew."
        )
    return manifest


def load_json(path: Path) -> Any:
    """The content of a JSON file; None when there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PipelineError(
            f"{path}: not JSON ({error}); remake the folder, --overwrite"
        ) from error


def remove_strays(folder: Path, keep: set[str]) -> None:
    """Remove shards and temporary files of ours that are not named in `keep`."""
    for pattern in (*_SHARDS, "*.tmp"):
        for path in (*folder.glob(pattern), *folder.glob(f"seq-*/{pattern}")):
            if str(path.relative_to(folder)) not in keep:
                path.unlink()


def _clear(folder: Path) -> None:
    """Remove what a run writes, the manifest first, and nothing else; the lock stays."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for pattern in _LEFTOVERS:
        for path in folder.glob(pattern):
            path.unlink()
    for pattern in _FOLDERS:
        for path in folder.glob(pattern):
            shutil.rmtree(path)
    for path in (folder / WORK).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def leave_error(folder: Path, error: Exception) -> None:
    """Leave a user's error for the process that runs the graph, which takes it up."""
    text = str(error).encode()
    write_atomic(folder / WORK / "errors" / hashlib.sha256(text).hexdigest()[:16], text)


def take_errors(folder: Path) -> list[str]:
    """What workers have left; it is gone afterwards."""
    found = []
    for path in sorted((folder / WORK / "errors").glob("*")):
        found.append(path.read_text())
        path.unlink()
    return found
