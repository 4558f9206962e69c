"""`python -m pipeline verify DATA`: every hash, offset, shape and count of a data folder."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

from pipeline.errors import PipelineError
from pipeline.report.balance import READABLE
from pipeline.shards.shard import shard_problem
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.tokens.special import SpecialTokens


def load_manifest(folder: Folder) -> dict[str, Any]:
    """The manifest of a finished data folder; PipelineError when it is none."""
    if folder.local is not None and folder.local.is_file():
        raise PipelineError(f"{folder}: a file; give the data folder that it lies in")
    path = folder.path(work.MANIFEST)
    manifest: dict[str, Any] | None = work.load_json(folder, work.MANIFEST)
    if manifest is None and folder.local is not None and not folder.local.exists():
        raise PipelineError(f"{folder}: no such folder ({folder.local.absolute()})")
    if manifest is None:
        raise PipelineError(
            f"{path}: missing, so this is no finished data folder; "
            f"finish it with `python -m pipeline --config … --output {folder}`"
        )
    found = (manifest.get("format"), manifest.get("version"))
    if found not in [(work.FORMAT, version) for version in READABLE]:
        raise PipelineError(
            f"{path}: format {found}, expected {work.FORMAT} in version 1 or 2; it may be of a "
            "later release of latemask"
        )
    SpecialTokens.of_manifest(manifest, path)
    return manifest


def problems(folder: Folder, output: Folder | None = None) -> list[str]:
    """All that is wrong with a data folder, a line each; empty when it is whole.

    `output` is the run's folder, where that of a further sequence length is checked.
    """
    manifest = load_manifest(folder)
    rebuild = f"python -m pipeline --config CONFIG --output {output or folder}"
    remove = "rm -f {} &&" if folder.local else "delete it, then"
    found = []
    for split, entry in manifest["splits"].items():
        for shard in entry["shards"]:
            if problem := shard_problem(folder, shard, manifest):
                path = folder.path(shard["name"])
                again = f"{remove.format(path)} {rebuild}"
                found.append(f"{path} {problem}\n  to rebuild it alone: {again}")
        for key in ("sequences", "tokens"):
            total = sum(shard[key] for shard in entry["shards"])
            if total != entry[key]:
                found.append(f"{work.MANIFEST}: {split} {key} {entry[key]:,}, its shards {total:,}")
    tokenizer = folder.path("tokenizer.json")
    if not folder.exists("tokenizer.json"):
        found.append(f"{tokenizer} is missing\n  to rebuild it: {rebuild}")
    elif _sha256(folder.read("tokenizer.json")) != manifest["tokenizer_sha256"]:
        found.append(
            f"{tokenizer} is not the tokenizer of these shards\n"
            f"  to rebuild it: {remove.format(tokenizer)} {rebuild}"
        )
    if manifest["seq_len"] == manifest["config"]["seq_len"]:
        for seq_len in manifest["config"]["packing"]["more_seq_lens"]:
            found += problems(folder.within(f"seq-{seq_len}"), folder)
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def verify(folder: Folder) -> int:
    """Print what is wrong; 0 when nothing is, else 1."""
    found = problems(folder)
    for problem in found:
        print(f"damaged: {problem}", file=sys.stderr)
    if found:
        return 1
    splits = load_manifest(folder)["splits"]
    shards = sum(len(entry["shards"]) for entry in splits.values())
    tokens = sum(entry["tokens"] for entry in splits.values())
    print(f"{folder}: {shards} shards, {tokens:,} tokens, all as the manifest says")
    return 0
