"""`python -m pipeline inspect DATA`: what was read, dropped and why, as text, and as a picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from pipeline import provenance
from pipeline.report.balance import documents_of, fates
from pipeline.report.sources import Outcome, largest, table
from pipeline.report.verify import load_manifest
from pipeline.shards.shard import read_rows
from pipeline.split import SPLITS
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.tokens import tokenizer


def inspect(folder: Folder, picture: Path | None, sequences: int) -> str:
    """The report of a data folder as text; draws the same into `picture`, if given."""
    manifest = load_manifest(folder)
    if picture:
        draw(manifest, picture)
    parts = [_totals(folder, manifest)]
    parts += [f"documents by source\n{table(_outcomes(manifest))}", _lengths(manifest)]
    parts += [_dropped(folder), _sequences(folder, manifest, sequences)]
    if picture:
        parts.append(f"picture: {picture}")
    return "\n\n".join(part for part in parts if part)


def _totals(folder: Folder, manifest: dict[str, Any]) -> str:
    counts = manifest["counts"]
    lines = [
        f"{folder}: sequences of {manifest['seq_len']} tokens ({manifest['dtype']}), "
        f"vocabulary {manifest['vocab_size']:,}, config {manifest['config_sha256'][:12]}"
    ]
    for split, entry in manifest["splits"].items():
        lines.append(
            f"  {split:6} {entry['documents']:>10,} documents {entry['sequences']:>10,} sequences "
            f"{entry['tokens']:>13,} tokens in {len(entry['shards'])} shards, "
            f"{entry['leftover_tokens']:,} left over, {entry['repeated_tokens']:,} in two sequences"
        )
    total = counts["total"]
    steps = " + ".join(f"{total[key]:,} {_words(key)}" for key in _present(manifest))
    parts = total.get("further_parts", 0)
    further = f" + {parts:,} further parts of {total['cut']:,} that were cut" if parts else ""
    lines.append(f"  {total['read']:,} documents read{further} = {steps}")
    if total["repeated"]:
        lines.append(f"  {total['repeated']:,} more copies of training documents (weights over 1)")
    if total["boilerplate_lines"]:
        lines.append(f"  {total['boilerplate_lines']:,} lines of boilerplate removed")
    if passages := total.get("unparsed_passages"):
        lines.append(f"  {passages:,} passages of markup that couldn't be parsed removed")
    if counts["contaminated"]:
        tasks = ", ".join(f"{task} {n:,}" for task, n in counts["contaminated"].items())
        lines.append(f"  documents with sentences of {tasks}")
    lines.append(f"  unreadable records {counts['rejected']:,} (rejected.jsonl)")
    if made_by := manifest.get(provenance.KEY):
        lines.append(f"  {_made_by(made_by)}")
    return "\n".join(lines)


def _made_by(record: dict[str, Any]) -> str:
    """Command, commit and versions of the run that made the data, in one line."""
    commit = record["commit"] or "unknown"
    changes = " with uncommitted changes" if record["clean"] is False else ""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"made by {record['command']} (commit {commit}{changes}; {versions})"


def _outcomes(manifest: dict[str, Any]) -> list[Outcome]:
    return [
        Outcome(
            name,
            read=count["read"],
            further_parts=count.get("further_parts", 0),
            kept=sum(count[split] for split in SPLITS),
            dropped=Counter({k: n for k, n in fates(count).items() if n and k not in SPLITS}),
        )
        for name, count in manifest["counts"]["sources"].items()
    ]


def _present(manifest: dict[str, Any]) -> list[str]:
    """What became of documents, without the reasons that no document had."""
    return [key for key, number in fates(manifest["counts"]["total"]).items() if number]


def _words(key: str) -> str:
    return key.replace("_", " ")


def _dropped(folder: Folder) -> str:
    """Examples of what the rules dropped; they lie in the folder that a run has made."""
    examples = work.load_json(folder, "dropped.json") or {}
    lines = []
    for reason, some in examples.items():
        for example in some:
            kept = f" (kept: {example['kept']})" if "kept" in example else ""
            lines.append(
                f"  {_words(reason)}: {example['id']}{kept}\n    {example['text'][:150]!r}"
            )
    return "examples of what was dropped\n" + "\n".join(lines) if lines else ""


def _lengths(manifest: dict[str, Any]) -> str:
    lengths = {int(k): n for k, n in manifest["counts"]["document_tokens_below"].items()}
    most = max(lengths.values(), default=1)
    bars = [
        f"  {f'{below // 2:,} - {below - 1:,}':>18} {n:>10,} {'#' * round(40 * n / most)}"
        for below, n in lengths.items()
    ]
    return "documents by length in tokens\n" + "\n".join(bars)


def _sequences(folder: Folder, manifest: dict[str, Any], count: int) -> str:
    model = tokenizer.load(folder)
    shard = manifest["splits"]["train"]["shards"][0]
    found = read_rows(folder, shard, manifest)
    picked = [found[i * len(found) // count] for i in range(count)]
    texts = [model.decode(ids.tolist(), skip_special_tokens=False) for ids in picked]
    return f"sequences of {shard['name']}\n" + "\n".join(f"  {text!r}" for text in texts)


def draw(manifest: dict[str, Any], path: Path) -> None:
    """A PNG with the documents by source, their lengths, and where all documents went."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    sources = largest(_outcomes(manifest))[::-1]
    left.barh([source.name for source in sources], [source.read for source in sources])
    left.set(title="Documents read, by source", xlabel="documents")
    lengths = {int(k): n for k, n in manifest["counts"]["document_tokens_below"].items()}
    middle.bar([f"{k // 2}–{k - 1}" for k in lengths], list(lengths.values()))
    middle.tick_params(axis="x", rotation=60)
    middle.set(title="Length of train and valid documents", xlabel="tokens", ylabel="documents")
    total = manifest["counts"]["total"]
    keys = _present(manifest)
    right.barh([_words(key) for key in keys], [total[key] for key in keys], color="C1")
    for position, key in enumerate(keys):
        right.text(total[key], position, f" {total[key]:,}", va="center")
    right.set(title=f"Where the {documents_of(total):,} documents went", xlabel="documents")
    right.margins(x=0.2)
    figure.savefig(path, dpi=110)
    plt.close(figure)
