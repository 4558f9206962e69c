"""Deduplication and the assignment of shards on many documents without text, and what that means
for corpora of terabytes.

    python -m benchmarks.pipeline_scale --documents 1000000 10000000 [--folder runs/scale]
    python -m benchmarks.pipeline_scale --paper

Documents are ids, hashes of texts, MinHash signatures and lengths (600 bytes each on the disk): a
fifth are equal to another, and of the others a fifth nearly equal; one of a hundred is one of a
hundred texts that stand everywhere. Every step runs alone in a process of its own, all its parts
one after another on one core. The report is docs/benchmarks/pipeline_scale.md; sizes measured
before stay in it. `--paper` prints what follows for 160 GB and for 10 TB (docs/scale.md).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import processor
from benchmarks.pipeline_scale_data import (
    PIECE_DOCUMENTS,
    SHARDS,
    config,
    prepare_bands,
    prepare_signatures,
    prepare_texts,
    prepare_tokens,
)
from benchmarks.pipeline_scale_paper import paper
from pipeline.dedup import duplicates, hash_space, near_duplicates
from pipeline.shards import assign
from pipeline.sources.records import Document
from pipeline.store import catalog, dropped, pieces, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pretrain.memory import peak_resident_gib

OUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"


def match_texts(folder: Folder, count: int) -> dict[str, int]:
    """All parts; how many there are, and what they find."""
    of = hash_space.parts(count)
    return {"parts": of, "found": sum(duplicates.match(folder, part, of) for part in range(of))}


def drop_duplicates(folder: Folder, count: int) -> dict[str, int]:
    """Marks of all documents."""
    return {"found": duplicates.drop(folder, hash_space.parts(count))[dropped.DUPLICATE]}


def match_signatures(folder: Folder, count: int) -> dict[str, int]:
    """All parts; how many there are, and the candidates they find."""
    of = near_duplicates.parts(folder, config(folder))
    return {"parts": of, "found": sum(near_duplicates.match(folder, p, of) for p in range(of))}


def list_candidates(folder: Folder, count: int) -> dict[str, int]:
    """All parts; how many there are, and the pairs, each once."""
    of = near_duplicates.parts(folder, config(folder))
    found = [near_duplicates.list_candidates(folder, part, of) for part in range(of)]
    return {"parts": of, "found": sum(found)}


def compare_signatures(folder: Folder, count: int) -> dict[str, int]:
    """All hashes of all pairs; in how many parts, and the pairs."""
    of = near_duplicates.parts(folder, config(folder))
    hash_parts = near_duplicates.hash_parts(config(folder), of)
    found = [near_duplicates.compare(folder, config(folder), p, of) for p in range(hash_parts)]
    return {"parts": hash_parts, "found": found[0]}


def drop_near_duplicates(folder: Folder, count: int) -> dict[str, int]:
    """The survivors of all components."""
    of = near_duplicates.parts(folder, config(folder))
    found = near_duplicates.drop(folder, config(folder), of)
    return {"found": found[dropped.NEAR_DUPLICATE]}


def assign_shards(folder: Folder, count: int) -> dict[str, int]:
    """Where every shard lies in every group."""
    assign.assign_shards(folder, Catalog.load(folder).groups, SHARDS, fewest_tokens=1024)
    return {"found": assign.shard_counts(folder, SHARDS)["train"]}


def read_shards(folder: Folder, count: int) -> dict[str, int]:
    """The documents of ten shards of a thousand."""
    found = [
        assign.shard_documents(folder, "train", shard, dtype=np.dtype("u2"), sentences=False)
        for shard in range(10)
    ]
    return {"found": sum(len(some.tokens) for some in found)}


def sign_texts(folder: Folder, count: int) -> dict[str, float]:
    """One group of one piece of text that is random words; bytes of text."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randrange(2, 10))) for _ in range(9000)]
    documents = [
        Document(str(number), " ".join(rng.choices(words, k=480)), "text")
        for number in range(PIECE_DOCUMENTS)
    ]
    alone = folder.within("sign")
    pieces.write_piece(alone, pieces.piece_name(0, 0), documents, duplicates.records(documents))
    work.write_json(alone, pieces.chunk_name(0), {"pieces": [pieces.piece_name(0, 0)]})
    catalog.write(alone, 1)
    dropped.write(alone, dropped.DUPLICATE, np.zeros(len(documents), bool), [])
    begin = time.process_time()
    near_duplicates.sign(alone, config(alone), 0)
    found = sum(len(document.text) for document in documents)
    return {"found": found, "cpu": round(time.process_time() - begin, 2)}


STEPS = (
    match_texts,
    drop_duplicates,
    prepare_bands,
    match_signatures,
    prepare_signatures,
    list_candidates,
    compare_signatures,
    drop_near_duplicates,
    prepare_tokens,
    assign_shards,
    read_shards,
    sign_texts,
)


def alone(step: Callable[..., Any], folder: Folder, count: int) -> dict[str, Any]:
    """Seconds, the largest resident memory in GiB, and what a step says, in its own process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_timed, args=(sender, step, folder, count))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _timed(sender: Any, step: Callable[..., Any], folder: Folder, count: int) -> None:
    wall, processor_time = time.perf_counter(), time.process_time()
    found = step(folder, count) or {}
    sender.send(
        {
            "seconds": round(time.perf_counter() - wall, 2),
            "cpu": round(time.process_time() - processor_time, 2),
            "gib": round(peak_resident_gib(), 3),
            **found,
        }
    )


def measure(path: Path, count: int) -> dict[str, Any]:
    """Every step on so many documents."""
    folder = Folder(str(path))
    shutil.rmtree(path, ignore_errors=True)
    try:
        alone(prepare_texts, folder, count)
        found = {"pieces": len(Catalog.load(folder)), "groups": Catalog.load(folder).groups}
        steps = {step.__name__: alone(step, folder, count) for step in STEPS}
    finally:
        shutil.rmtree(path, ignore_errors=True)
    shown = {name: step for name, step in steps.items() if not name.startswith("prepare_")}
    return {**found, "steps": shown}


def table(found: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [
        "# Deduplication and shards of many documents",
        "",
        "Every step alone in a process of its own, all its parts one after another on one core. "
        "Memory is the process's own at its largest, some .2 GiB of libraries included. Made by "
        "`python -m benchmarks.pipeline_scale`.",
        "",
        "| documents | step | parts | found | seconds | of them CPU | GiB |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for count, result in sorted(found["documents"].items(), key=lambda item: int(item[0])):
        for name, step in result["steps"].items():
            lines.append(
                f"| {int(count):,} | {name.replace('_', ' ')} | {step.get('parts', 1)} | "
                f"{step['found']:,} | {step['seconds']:.1f} | {step['cpu']:.1f} | "
                f"{step['gib']:.2f} |"
            )
    return "\n".join([*lines, "", found["machine"], ""])


def main() -> None:
    """Measure some sizes and write them into the report, or print what follows from it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--documents", type=int, nargs="*", default=[])
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-pipeline-scale"))
    parser.add_argument("--paper", action="store_true")
    args = parser.parse_args()
    report = OUT / "pipeline_scale.json"
    found = json.loads(report.read_text()) if report.exists() else {"documents": {}}
    for count in args.documents:
        found["documents"][str(count)] = measure(args.folder.resolve(), count)
        found["machine"] = processor_line()
        report.write_text(json.dumps(found, indent=1) + "\n")
        report.with_suffix(".md").write_text(table(found))
    if args.paper:
        print(paper(found["documents"]))


def processor_line() -> str:
    """The processor, in one line."""
    import torch

    return processor(torch.device("cpu"))


if __name__ == "__main__":
    main()
