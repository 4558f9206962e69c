"""The balance of a run, and the manifest that states it.

Some Beam runners drop data without a word. So at the end every document that was read must be
found again: dropped for a reason, or a duplicate, or in a split; and what the shards hold must be
what the splits say. Else the run fails, naming both figures.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict
from typing import Any

from pipeline.cleaning import filters
from pipeline.config import Cleaning, Config
from pipeline.errors import PipelineError
from pipeline.shards.shard import shard_list
from pipeline.split import SPLITS
from pipeline.store import dropped, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pipeline.store.pieces import piece_receipt, read_done
from pipeline.tokens.encoded import tokens_name
from pipeline.tokens.special import SpecialTokens

VERSION = 2
READABLE = (1, VERSION)  # 1 has no special_tokens: they are RoBERTa's
DUPLICATES = "drop duplicates"  # the stages whose sums say how many were kept and dropped
NEAR_DUPLICATES = "drop near-duplicates"
# Counts of a source that say nothing of what became of its documents. Those that were read, and the
# further parts of those that were cut, are dropped for a reason or in a split.
READ = ("read", "further_parts")
_EXTRA = ("cut", "repeated", "boilerplate_lines", "unparsed_passages", "characters")


def drop_reasons(cleaning: Cleaning) -> list[str]:
    """What may become of a document, besides a split."""
    return [
        *("redirect", "not_article"),
        *filters.names(cleaning),
        *("not_sampled", "contaminated"),
        *dropped.REASONS,
    ]


def documents_of(count: dict[str, int]) -> int:
    """Documents that were read, each part of those that were cut being one."""
    return sum(count.get(key, 0) for key in READ)


def fates(count: dict[str, int]) -> dict[str, int]:
    """What became of how many documents, by reason and split, as a manifest's counts say."""
    return {key: n for key, n in count.items() if key not in (*READ, *_EXTRA)}


def cleaned(folder: Folder, config: Config, chunks: int) -> dict[str, Any]:
    """Totals of cleaning: what all chunks found, against what is in their pieces."""
    counts: dict[str, Counter[str]] = {}
    contaminated: Counter[str] = Counter()
    rejected = 0
    names: list[str] = []
    for chunk in range(chunks):
        found = read_done(folder, chunk)
        names += found["pieces"]
        rejected += found["rejected"]
        contaminated.update(found["contaminated"])
        for source, steps in found["counts"].items():
            counts.setdefault(source, Counter()).update(steps)
    clean_documents = sum(count["clean"] for count in counts.values())
    if clean_documents == 0:
        read = sum(count["read"] for count in counts.values())
        remedy = "see `cleaning` in the config" if read else "see `kind` and `paths` of the sources"
        raise PipelineError(
            f"no document is left after cleaning ({read:,} were read, {rejected:,} records were "
            f"unreadable): {remedy}"
        )
    stored = sum(piece_receipt(folder, name)["documents"] for name in names)
    _equal("documents in the pieces", stored, clean_documents)
    for source, count in counts.items():
        found_again = sum(count[k] for k in ("clean", *drop_reasons(config.cleaning)))
        _equal(f"clean + dropped of {source}", found_again, documents_of(count))
    return {
        "counts": counts,
        "clean": clean_documents,
        "rejected": rejected,
        "contaminated": contaminated,
    }


def deduplicated(folder: Folder, config: Config, chunks: int) -> dict[str, Any]:
    """Totals of cleaning and deduplication; what all chunks found against what is kept."""
    totals = cleaned(folder, config, chunks)
    kept = totals["clean"]
    drops = dict.fromkeys(dropped.REASONS, 0)
    stages = {dropped.DUPLICATE: DUPLICATES, dropped.NEAR_DUPLICATE: NEAR_DUPLICATES}
    for reason in dropped.reasons(config):
        found = work.load_json(folder, work.sum_name(stages[reason])) or {}
        drops[reason] = found.get(reason, 0)
        _equal(f"kept + {reason}", found.get("kept", 0) + drops[reason], kept)
        kept -= drops[reason]
    return {**totals, "dropped": drops}


def manifest(
    folder: Folder,
    config: Config,
    seq_len: int,
    totals: dict[str, Any],
    *,
    files: int,
    vocab_size: int,
    special: SpecialTokens,
) -> dict[str, Any]:
    """The content of manifest.json (docs/formats.md, section A); PipelineError when unbalanced."""
    sources: dict[str, Counter[str]] = {s: Counter(c) for s, c in totals["counts"].items()}
    for source in config.sources:
        if source.kind != "python-docs":  # counted under its libraries
            sources.setdefault(source.label, Counter())  # one that gave no document
    lengths: Counter[int] = Counter()
    tokens = copies = 0
    for group in range(Catalog.load(folder).groups):
        receipt = _receipt(folder, tokens_name(group))
        lengths.update({int(k): n for k, n in receipt["lengths"].items()})
        tokens += receipt["tokens"]
        copies += receipt["copies"]
        for source, steps in receipt["counts"].items():
            sources[source].update(steps)
    for name, count in sources.items():
        found_again = sum(count[k] for k in (*drop_reasons(config.cleaning), *SPLITS))
        _equal(f"documents of {name}, dropped or in a split", found_again, documents_of(count))
    total: Counter[str] = sum(sources.values(), Counter())
    for key, number in totals["dropped"].items():
        _equal(f"{key} of all sources", total[key], number)

    splits = _splits(folder, config, seq_len)
    for name, entry in splits.items():
        expected = total[name] + (total["repeated"] if name == "train" else 0)
        _equal(f"documents in the {name} shards", entry["documents"], expected)
        if entry["sequences"] == 0:
            raise PipelineError(
                f"the {name} split has too few tokens for one sequence of {seq_len}: "
                f"{entry['leftover_tokens']:,} in {entry['documents']:,} documents and "
                f"{len(entry['shards'])} shards; add documents, or lower seq_len"
                + (f" or raise split.valid: {config.split.valid}" if name == "valid" else "")
            )
    shards = [shard for shard in shard_list(folder, config) if shard.seq_len == seq_len]
    filled = [d for s in shards if (d := _receipt(folder, s.name)["documents"])]
    if config.packing.mode == "full-sentences":
        tokens += copies - len(filled)  # a separator between two documents of a shard
    packed = sum((seq_len - 2) * e["sequences"] - e["repeated_tokens"] for e in splits.values())
    left_over = sum(entry["leftover_tokens"] for entry in splits.values())
    _equal(f"tokens in sequences of {seq_len} + left over", packed + left_over, tokens)
    return {
        "format": work.FORMAT,
        "version": VERSION,
        "seq_len": seq_len,
        "dtype": config.dtype,
        "vocab_size": vocab_size,
        "special_tokens": asdict(special),
        "tokenizer_sha256": hashlib.sha256(folder.read("tokenizer.json")).hexdigest(),
        "splits": splits,
        "counts": {
            "files": files,
            "rejected": totals["rejected"],
            "total": _ordered(total, config),
            "sources": {name: _ordered(sources[name], config) for name in sorted(sources)},
            "contaminated": dict(sorted(totals["contaminated"].items())),
            "document_tokens_below": {str(k): lengths[k] for k in sorted(lengths)},
        },
        "config": config.content(),
        "config_sha256": config.sha256(),
    }


def as_version(version: int, content: dict[str, Any]) -> dict[str, Any]:
    """A manifest's content as this version states it: what a repaired folder must keep saying."""
    if version == VERSION or content["special_tokens"] != asdict(
        SpecialTokens.robertas(content["vocab_size"])
    ):
        return content
    return {k: v for k, v in content.items() if k != "special_tokens"} | {"version": version}


def _splits(folder: Folder, config: Config, seq_len: int) -> dict[str, dict[str, Any]]:
    """The entries of the splits, from the receipts of their shards."""
    splits: dict[str, dict[str, Any]] = {}
    sums = ("sequences", "tokens", "documents", "leftover_tokens", "repeated_tokens")
    for shard in shard_list(folder, config):
        if shard.seq_len == seq_len:
            receipt = _receipt(folder, shard.name)
            keys = ("name", "bytes", "sha256", "sequences", "tokens", "blocks")
            entry = splits.setdefault(shard.split, {"shards": [], **dict.fromkeys(sums, 0)})
            entry["shards"].append({key: receipt[key] for key in keys})
            for key in sums:
                entry[key] += receipt[key]
    return splits


def _ordered(count: Counter[str], config: Config) -> dict[str, int]:
    keys = (*READ, *drop_reasons(config.cleaning), *SPLITS, *_EXTRA)
    return {key: count[key] for key in keys}


def _receipt(folder: Folder, name: str) -> dict[str, Any]:
    receipt = work.read_receipt(folder, name, check=False)
    if receipt is None:
        raise PipelineError(
            f"{folder.path(name)}: not written; the runner lost it, use another --runner"
        )
    return receipt


def _equal(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise PipelineError(
            f"the balance doesn't come out: {what}: {found:,}, expected {expected:,}. "
            "The runner lost data; nothing was finished. Use another --runner."
        )
