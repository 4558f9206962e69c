"""Deduplication and the assignment of shards on many documents without text, and what that means
for corpora of terabytes.

    python -m benchmarks.pipeline_scale --documents 1000000 10000000 [--folder runs/scale]
    python -m benchmarks.pipeline_scale --paper

Documents are ids, hashes of texts, MinHash signatures and lengths (880 bytes each on the disk): a
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
from benchmarks.pipeline_scale_paper import paper
from pipeline.config import Config, NearDuplicates, Shards, Source
from pipeline.dedup import duplicates, hash_space, near_duplicates
from pipeline.dedup.components import FACTS
from pipeline.dedup.shingles import mixed
from pipeline.shards import assign
from pipeline.sources.records import Document
from pipeline.store import catalog, dropped, pieces, work
from pipeline.store.catalog import PIECE, Catalog
from pipeline.store.folder import Folder
from pipeline.tokens import encoded
from pretrain.memory import peak_resident_gib

OUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
PIECE_DOCUMENTS = 2700  # of 3 kB in the usual chunk_bytes
TOKENS = 8  # of a document: few, since it's the documents that cost
SHARDS = Shards(train=1000, valid=1)
NEAR = NearDuplicates()


def config(folder: Folder) -> Config:
    """Of a run with the usual near-duplicates."""
    source = Source(kind="text", paths=["none"])
    return Config(output=folder.url, sources=[source], near_duplicates=NEAR, shards=SHARDS)


def number_hash(numbers: np.ndarray, salt: int) -> np.ndarray:
    """uint64, a random number for each number."""
    return mixed(numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt << 32))


def texts(numbers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The text that each document has, a number, and whether it is changed a little."""
    lot = number_hash(numbers, 1) % np.uint64(1000)
    other = number_hash(numbers, 2) % np.uint64(count)
    equal, near, common = lot < 190, (lot >= 190) & (lot < 360), lot >= 990
    text = np.where(equal | near, other, numbers.astype(np.uint64))
    text[common] = number_hash(numbers[common], 3) % np.uint64(100)
    return text, near


def signatures(numbers: np.ndarray, count: int) -> np.ndarray:
    """uint32 [documents, hashes]: of the text, one in twenty or in seven of another if changed."""
    text, near = texts(numbers, count)
    hashes = np.arange(NEAR.bands * NEAR.rows, dtype=np.uint64)
    signed = number_hash(text[:, None] * np.uint64(128) + hashes, 4)
    own = number_hash(numbers[near, None] * np.uint64(128) + hashes, 5)
    changed = own % np.uint64(140) < np.where(numbers[near] % 2, 7, 20)[:, None].astype(np.uint64)
    signed[near] = np.where(changed, own, signed[near])
    return (signed >> np.uint64(32)).astype(np.uint32)


def prepare_texts(folder: Folder, count: int) -> None:
    """The catalog and the hashes of every piece."""
    firsts = np.arange(0, count, PIECE_DOCUMENTS)
    listed = np.zeros(len(firsts), PIECE)
    listed["chunk"] = np.arange(len(firsts))
    listed["first"] = firsts
    listed["documents"] = np.diff(firsts, append=count)
    folder.write(catalog.NAME, work.array_bytes(listed))
    every = Catalog(listed)
    for piece in range(len(every)):
        span = every.numbers(piece)
        numbers = np.arange(span.start, span.stop)
        text, near = texts(numbers, count)
        found = np.zeros(len(numbers), duplicates.RECORD)
        found["high"] = np.where(near, number_hash(numbers, 6), number_hash(text, 7))
        found["document"][:, 0] = number_hash(numbers, 8)
        found["ordinal"] = np.arange(len(numbers))
        found = found[np.argsort(found["high"])]
        folder.write(pieces.hashes_name(every.name(piece)), work.array_bytes(found))


def prepare_groups(folder: Folder, count: int) -> None:
    """What `sign` and `tokenize_group` would leave of the documents that are no duplicates."""
    every = Catalog.load(folder)
    marks = dropped.marks(folder, dropped.DUPLICATE)
    for group in range(every.groups):
        first, last = every.group(group)[0], every.group(group)[-1]
        span = slice(every.numbers(first).start, every.numbers(last).stop)
        numbers = span.start + np.flatnonzero(~marks[span])
        signed = signatures(numbers, count)
        facts = np.zeros(len(numbers), FACTS)
        facts["hash"][:, 0] = number_hash(numbers, 8)
        facts["characters"] = 2000 + number_hash(numbers, 9) % np.uint64(2000)
        index = np.zeros(len(numbers), encoded.INDEX)
        index["hash"][:, 0] = np.sort(facts["hash"][:, 0])
        index["length"] = TOKENS
        tokens = np.zeros(TOKENS * len(numbers), np.uint16)
        contents = {
            near_duplicates.group_name(group, "bands"): near_duplicates.bands(signed, NEAR),
            near_duplicates.group_name(group, "facts"): facts,
            near_duplicates.group_name(group, "signatures"): signed,
            encoded.index_name(group): index,
            encoded.tokens_name(group): tokens,
        }
        for name, array in contents.items():
            folder.write(name, work.array_bytes(array))
        receipt = work.receipt_name(near_duplicates.group_name(group, "signatures"))
        work.write_json(folder, receipt, {"documents": len(numbers)})


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


def verify_pairs(folder: Folder, count: int) -> dict[str, int]:
    """All parts; the pairs that are similar enough."""
    of = near_duplicates.parts(folder, config(folder))
    found = [near_duplicates.verify(folder, config(folder), part, of) for part in range(of)]
    return {"parts": of, "found": sum(found)}


def drop_near_duplicates(folder: Folder, count: int) -> dict[str, int]:
    """The survivors of all components."""
    of = near_duplicates.parts(folder, config(folder))
    return {"found": near_duplicates.drop(folder, of)[dropped.NEAR_DUPLICATE]}


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
    prepare_groups,
    match_signatures,
    verify_pairs,
    drop_near_duplicates,
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
    del steps[prepare_groups.__name__]
    return {**found, "steps": steps}


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
