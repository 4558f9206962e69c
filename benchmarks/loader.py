"""The loader alone, on one core: tokens per second read, corrupted and put into micro-batches.

    python -m benchmarks.loader [--rows 100000] [--repeats 7]

Random rows are written as a shard to a temporary folder and read back through the memory map in the
order of an epoch. Medians with the spread between quartiles; `docs/benchmarks/loader.md` is what it
prints.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.tiny_run import write_shard
from pretrain.batches import Batches
from pretrain.data import ShardFolder
from pretrain.manifest import FORMAT
from pretrain.recipe import MaskingConfig

VOCAB, BLOCK, MICRO_BATCH = 50265, 1024, 32
MASKINGS = {
    "vanilla, 15 %": MaskingConfig(rate=0.15),
    "50 %, 80/10/10": MaskingConfig(rate=0.5),
    "50 %, three fifths predicted": MaskingConfig(
        rate=0.5, loss_fraction=0.6, masked_share=1.0, random_share=0.0
    ),
    "50 %, whole words": MaskingConfig(rate=0.5, select="whole_word"),
    "50 %, spans": MaskingConfig(rate=0.5, select="span"),
}


def write_shards(folder: Path, num_rows: int, seq_len: int) -> None:
    """A data set of random rows in contract A's layout (docs/formats.md), in one shard."""
    generator = np.random.default_rng(0)
    tokenizer = json.dumps(
        {"model": {"type": "BPE", "vocab": {f"\u0120{i}"[i % 3 == 0 :]: i for i in range(VOCAB)}}}
    )
    (folder / "tokenizer.json").write_text(tokenizer)
    rows = generator.integers(4, VOCAB - 1, size=(num_rows, seq_len), dtype=np.uint16)
    rows[:, 0], rows[:, -1] = 0, 2
    splits = {}
    for split, part in (("train", rows), ("valid", rows[:64])):
        entry = write_shard(folder / f"{split}-00000-of-00001.tar", part, BLOCK)
        splits[split] = {"sequences": len(part), "tokens": part.size, "shards": [entry]}
    manifest = {
        "format": FORMAT, "version": 1, "seq_len": seq_len, "dtype": "uint16",
        "vocab_size": VOCAB, "tokenizer_sha256": hashlib.sha256(tokenizer.encode()).hexdigest(),
        "splits": splits,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))


def main() -> None:
    """Print one line a masking and length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=102_400)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    print(f"# The loader alone, one core\n\n{describe(torch.device('cpu'))}. Micro-batches of")
    print(f"{MICRO_BATCH} rows; `python -m benchmarks.loader`.\n")
    print("| masking | length | million tokens/s | spread |\n| --- | ---: | ---: | ---: |")
    for seq_len in (128, 512):
        with tempfile.TemporaryDirectory() as name:
            write_shards(Path(name), args.rows * 128 // seq_len, seq_len)
            data = ShardFolder(name)
            batches = Batches(
                data, seed=0, global_batch_size=MICRO_BATCH, micro_batch_size=MICRO_BATCH
            )
            count = min(400, len(batches.sequences) // MICRO_BATCH)
            speeds: dict[str, list[float]] = {name: [] for name in MASKINGS}
            for _ in range(args.repeats + 1):
                for title, masking in MASKINGS.items():
                    steps = batches.steps(0, masking)
                    begin = time.perf_counter()
                    for _ in islice(steps, count):
                        pass
                    seconds = time.perf_counter() - begin
                    steps.close()
                    speeds[title].append(count * MICRO_BATCH * seq_len / seconds / 1e6)
            for title, values in speeds.items():
                low, median, high = statistics.quantiles(values[1:], n=4)  # the first warms up
                spread = (high - low) / median
                print(f"| {title} | {seq_len} | {median:.1f} | {spread:.0%} |")


if __name__ == "__main__":
    main()
