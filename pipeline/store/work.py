"""What a data folder holds while it is made, and the rules by which it may be touched.

`OUTPUT/.work` keeps the config and the plan of the run, the cleaned documents and the tokens of
every chunk, and a receipt beside each finished file. Whatever is there is whole (`Folder`), so a
killed run continues behind the last receipt.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, differing_keys
from pipeline.errors import PipelineError
from pipeline.store.folder import Folder
from pipeline.store.lock import LOCK, has_been_held

WORK = ".work"
MANIFEST = "manifest.json"
FORMAT = "latemask-shards"  # of what the manifest describes, by its first key
_CONFIG = f"{WORK}/config.json"
_SHARDS = ("train-*-of-*.tar", "valid-*-of-*.tar")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_LEFTOVERS = (*_SHARDS, *_TOKENIZER, "rejected.jsonl", "dropped.json", "*.tmp")
_FOLDERS = ("tasks/", "seq-*/")
# What the stages up to deduplication write into `.work`.
_DOCUMENTS = (
    *("plan.json", "decontamination.npz", "config.json", "pieces.npy"),
    *("chunks/", "documents/", "duplicates/", "signatures/", "candidates/", "pairs/", "dropped/"),
    *("agreements/", "sums/"),
)

log = logging.getLogger(__name__)


def write_json(folder: Folder, name: str, content: Any) -> None:
    """`Folder.write`, readable, keys in the order given."""
    folder.write(name, (json.dumps(content, indent=1) + "\n").encode())


def array_bytes(array: np.ndarray) -> bytes:
    """The .npy file of an array."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def write_certified(folder: Folder, name: str, content: bytes, /, **facts: Any) -> dict[str, Any]:
    """`Folder.write`, then a receipt beside it; returns that: `facts`, bytes and sha256."""
    folder.write(name, content)
    digest = hashlib.sha256(content).hexdigest()
    receipt = {**facts, "bytes": len(content), "sha256": digest}
    write_json(folder, receipt_name(name), receipt)
    return receipt


def read_receipt(folder: Folder, name: str, check: bool = True) -> dict[str, Any] | None:
    """The receipt of a finished file; None when it has none, or (`check`) is not as certified."""
    try:
        receipt: dict[str, Any] = json.loads(folder.read(receipt_name(name)))
        if check and not folder.is_as(name, receipt):
            return None
    except FileNotFoundError:
        return None
    return receipt


def receipt_name(name: str) -> str:
    """File that certifies the one of this name."""
    where = "" if name.startswith(f"{WORK}/") else f"{WORK}/shards/"
    return f"{where}{name}.receipt.json"


def sum_name(stage: str) -> str:
    """File of what a stage has counted in all; there when it has ended."""
    return f"{WORK}/sums/{stage}.json"


def is_data_folder(has: Callable[[str], bool], head: Callable[[str], bytes]) -> bool:
    """Whether a folder is one that a run makes, or has made.

    Args:
        has: whether there is a file of a name in the folder.
        head: the first bytes of such a file.
    """
    return has(_CONFIG) or (has(MANIFEST) and f'"{FORMAT}"'.encode() in head(MANIFEST))


def check_ownership(folder: Folder) -> None:
    """PipelineError when `folder` holds something that no run of ours began.

    What a manifest says decides, not its name: other programs write a `manifest.json`, too.
    """
    if folder.local is not None and folder.local.is_file():
        raise PipelineError(f"{folder}: a file; --output must name a folder")
    names = [*folder.list()]
    if MANIFEST in names:
        content = _parsed(folder, MANIFEST)
        if _is_manifest(content):
            return
        if content is None and f"{WORK}/" in names and _was_begun(folder):
            raise PipelineError(
                f"{folder.path(MANIFEST)}: not JSON, so damaged; move it away, and the same "
                f"command writes it again from {WORK}"
            )
        names = [f'{MANIFEST} without "format": "{FORMAT}" and a config']
    elif not names or (f"{WORK}/" in names and _was_begun(folder)):
        return
    raise PipelineError(
        f"{folder}: holds files that this program didn't write ({', '.join(names[:5])}"
        f"{', …' if len(names) > 5 else ''}); choose an empty --output"
    )


def _is_manifest(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and content.get("format") == FORMAT
        and isinstance(content.get("config"), dict)
    )


def _was_begun(folder: Folder) -> bool:
    """Whether `.work` is that of a run: by its config or, before there is one, by its lock."""
    config = _parsed(folder, _CONFIG)
    return (isinstance(config, dict) and {"sources", "seq_len"} <= config.keys()) or has_been_held(
        folder
    )


def _parsed(folder: Folder, name: str) -> Any:
    """The content of a JSON file; None when there is none, or it is no JSON."""
    try:
        return json.loads(folder.read(name))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return None


def beside(path: Path) -> Path:
    """Where a finished local folder is made again, so that the old one stays until then."""
    path = path.resolve()
    return path.with_name(f".{path.name}.new")


def replace(path: Path) -> None:
    """Put the finished folder that lies beside `path` in its place."""
    new = beside(path)
    old = new.with_suffix(".old")
    if path.exists():
        path.rename(old)
    new.rename(path)
    if old.exists():
        _remove_replaced(old, path)


def _remove_replaced(old: Path, new: Path) -> None:
    """Remove a replaced folder; what no run has written there moves into its successor."""
    ours = (MANIFEST, f"{WORK}/", *_LEFTOVERS, *_FOLDERS)
    # The manifest goes last: by it a removal that was killed is known to be of a folder of ours.
    for path in sorted(old.iterdir(), key=lambda path: path.name == MANIFEST):
        name = f"{path.name}/" if path.is_dir() else path.name
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ours):
            path.rename(new / path.name)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """Finish a `replace` that was killed half way.

    Raises PipelineError when somebody else's files have the name that one uses.
    """
    new = beside(path)
    old = new.with_suffix(".old")
    for folder in (new, old):
        check_ownership(Folder(str(folder)))
    if not path.exists() and old.exists() and (new / MANIFEST).exists():
        new.rename(path)
    if path.exists() and old.exists():
        _remove_replaced(old, path)


def is_of(folder: Folder, config: Config) -> bool:
    """Whether an unfinished folder was begun with `config`."""
    return load_json(folder, _CONFIG) == config.content() and not folder.exists(MANIFEST)


def begin(folder: Folder, config: Config, overwrite: bool) -> dict[str, Any] | None:
    """Claim a locked folder for `config`; the manifest, if a run with it has finished here.

    A run that was begun with a config of the same documents gives its clean documents to this one,
    and one that has cleaned nothing yet gives way.

    Raises PipelineError when the folder belongs to another config and `overwrite` is not set.
    """
    # A store has no place beside, so there the same command continues with what it has begun.
    if overwrite and (folder.local is not None or not is_of(folder, config)):
        _clear(folder)
    manifest: dict[str, Any] | None = load_json(folder, MANIFEST)
    begun = manifest["config"] if manifest else load_json(folder, _CONFIG)
    if begun != config.content() and not manifest and not folder.list(f"{WORK}/chunks"):
        _clear(folder)  # what is left where `--overwrite` was killed has another config
        write_json(folder, _CONFIG, config.content())
    elif begun is None:
        raise PipelineError(
            f"{folder.path(_CONFIG)}: not there, so nothing says with which config the documents "
            f"in {WORK} were made; put it back, choose another --output, or pass --overwrite to "
            "make all again"
        )
    elif begun != config.content():
        keys = "\n  ".join(differing_keys(config.content(), begun))
        if not manifest and config.has_documents_of(begun):
            log.info("%s: continues from its clean documents; there -> now:\n  %s", folder, keys)
            _clear(folder, keep=_DOCUMENTS)
            write_json(folder, _CONFIG, config.content())
            return None
        raise PipelineError(
            f"{folder}: {'finished' if manifest else 'begun'} with another config (there -> now):"
            f"\n  {keys}\nChoose another --output, or pass --overwrite to make it again."
        )
    return manifest


def load_json(folder: Folder, name: str) -> Any:
    """The content of a JSON file; None when there is no such file."""
    try:
        return json.loads(folder.read(name))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PipelineError(
            f"{folder.path(name)}: not JSON ({error}); remove it and make the folder again, "
            "--overwrite"
        ) from error


def remove_strays(folder: Folder, keep: set[str]) -> None:
    """Remove shards and temporary files of ours that are not named in `keep`."""
    for part in ("", *_matching(folder, "", ("seq-*/",))):
        for name in _matching(folder, part, (*_SHARDS, "*.tmp")):
            if name not in keep:
                folder.delete(name)


def _clear(folder: Folder, keep: tuple[str, ...] = ()) -> None:
    """Remove what a run writes, and nothing else; the lock stays, and what `keep` names in `.work`.

    First what would say of the rest that it is finished, or begun with this config.
    """
    for part in ("", *_matching(folder, "", ("seq-*/",))):
        folder.delete(f"{part}{MANIFEST}")
    if not keep:
        folder.delete(_CONFIG)
    for name in _matching(folder, "", (*_LEFTOVERS, *_FOLDERS)):
        folder.delete(name)
    for name in folder.list(WORK):
        if name.rstrip("/") != LOCK and name.removeprefix(f"{WORK}/") not in keep:
            folder.delete(name)


def _matching(folder: Folder, under: str, patterns: tuple[str, ...]) -> list[str]:
    """Names in a folder within (a `/` behind it) that match one of the patterns."""
    return [
        name
        for name in folder.list(under)
        if any(fnmatch.fnmatchcase(name.removeprefix(under), pattern) for pattern in patterns)
    ]


def leave_error(folder: Folder, error: Exception) -> None:
    """Leave a user's error for the process that runs the graph, which takes it up."""
    text = str(error).encode()
    folder.write(f"{WORK}/errors/{hashlib.sha256(text).hexdigest()[:16]}", text)


def take_errors(folder: Folder) -> list[str]:
    """What workers have left, which is deleted."""
    found = []
    for name in folder.list(f"{WORK}/errors"):
        found.append(folder.read(name).decode())
        folder.delete(name)
    return found
