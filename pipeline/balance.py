"""The balance of a run, and the manifest that states it.

Some Beam runners drop data without a word. So at the end every document that was read must be
found again: dropped for a reason, or a duplicate, or in a split; and what the shards hold must be
what the splits say. Else the run fails, naming both figures.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pipeline import work
from pipeline.config import Config
from pipeline.documents import documents_path, duplicates_path
from pipeline.errors import PipelineError
from pipeline.shards import shard_names
from pipeline.split import SPLITS
from pipeline.tokens import tokens_path

FORMAT, VERSION = "latemask-shards", 1
DROPS = ("too_short", "too_long", "not_prose")  # what pipeline.clean answers


def cleaned(folder: Path, chunks: int) -> dict[str, Any]:
    """Totals of graph one, from the receipts of all chunks; checked against its leaf."""
    counts: dict[str, Counter[str]] = {}
    rejected = duplicates = 0
    for chunk in range(chunks):
        receipt = _receipt(documents_path(folder, chunk))
        rejected += receipt["rejected"]
        duplicates += len(work.load_json(duplicates_path(folder, chunk)))
        for source, steps in receipt["counts"].items():
            counts.setdefault(source, Counter()).update(steps)
    leaf = work.load_json(folder / work.WORK / "deduplicated.json") or {}
    clean = sum(count["clean"] for count in counts.values())
    if clean == 0:
        raise PipelineError(
            "no document is left after cleaning: see `cleaning` in the config, and the sources"
        )
    _equal("chunks after deduplication", leaf.get("chunks", 0), chunks)
    _equal("duplicates in all chunks", duplicates, leaf.get("duplicates", 0))
    _equal("kept + duplicates", leaf.get("kept", 0) + duplicates, clean)
    for source, count in counts.items():
        _equal(
            f"clean + dropped of {source}", sum(count[k] for k in ("clean", *DROPS)), count["read"]
        )
    return {"counts": counts, "rejected": rejected, "duplicates": duplicates}


def manifest(
    folder: Path, config: Config, cleaned: dict[str, Any], chunks: int, files: int, vocab_size: int
) -> dict[str, Any]:
    """The content of manifest.json (docs/formats.md, section A); PipelineError when unbalanced."""
    sources: dict[str, Counter[str]] = {s: Counter(c) for s, c in cleaned["counts"].items()}
    lengths: Counter[int] = Counter()
    for chunk in range(chunks):
        receipt = _receipt(tokens_path(folder, chunk))
        lengths.update({int(k): n for k, n in receipt["lengths"].items()})
        for source, in_splits in receipt["counts"].items():
            sources[source].update(in_splits)
    for count in sources.values():
        count["duplicate"] = count.pop("clean", 0) - sum(count[split] for split in SPLITS)
    total: Counter[str] = sum(sources.values(), Counter())
    _equal("duplicates of all sources", total["duplicate"], cleaned["duplicates"])
    if min(count["duplicate"] for count in sources.values()) < 0:
        raise PipelineError(f"a source has more documents in the splits than were read: {sources}")

    splits: dict[str, dict[str, Any]] = {}
    for split, _, name in shard_names(config):
        receipt = _receipt(folder / name)
        keys = ("name", "bytes", "sha256", "sequences", "tokens", "blocks")
        entry = splits.setdefault(
            split,
            {"shards": [], "sequences": 0, "tokens": 0, "documents": 0, "leftover_tokens": 0},
        )
        entry["shards"].append({key: receipt[key] for key in keys})
        for key in ("sequences", "tokens", "documents", "leftover_tokens"):
            entry[key] += receipt[key]
    for name, entry in splits.items():
        _equal(f"documents in the {name} shards", entry["documents"], total[name])
        if entry["sequences"] == 0:
            raise PipelineError(
                f"the {name} split has no full row of {config.seq_len} tokens: "
                "more text, a larger share or a smaller seq_len is needed"
            )
    return {
        "format": FORMAT,
        "version": VERSION,
        "seq_len": config.seq_len,
        "dtype": config.dtype,
        "vocab_size": vocab_size,
        "tokenizer_sha256": work.file_sha256(folder / "tokenizer.json"),
        "splits": splits,
        "counts": {
            "files": files,
            "rejected": cleaned["rejected"],
            "total": _ordered(total),
            "sources": {name: _ordered(sources[name]) for name in sorted(sources)},
            "document_tokens_below": {str(k): lengths[k] for k in sorted(lengths)},
        },
        "config": config.content(),
        "config_sha256": config.sha256(),
    }


def _ordered(count: Counter[str]) -> dict[str, int]:
    return {key: count[key] for key in ("read", *DROPS, "duplicate", *SPLITS, "characters")}


def _receipt(path: Path) -> dict[str, Any]:
    receipt = work.read_receipt(path, check=False)
    if receipt is None:
        raise PipelineError(f"{path}: not written; the runner lost it, use another --runner")
    return receipt


def _equal(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise PipelineError(
            f"the balance doesn't come out: {what}: {found:,}, expected {expected:,}. "
            "The runner lost data; nothing was finished. Use another --runner."
        )
