"""Training steps with data in an object store against the same data in a folder, in turn.

    python -m benchmarks.object_store s3://BUCKET/FOLDER [--segments 6] [--steps 16]

Writes a small data set to a temporary folder and to the URL (whose server the environment names),
and trains one small model from both, a segment of steps from the one, then from the other. The
cache holds a window of two shards and four more, so that shards come and go all the time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import torch

from benchmarks.machine import describe
from benchmarks.tiny_run import write_random_folder
from pretrain.batches import Batches
from pretrain.budget import BudgetConfig
from pretrain.config import DataConfig, PretrainConfig, RunConfig
from pretrain.data import ShardFolder
from pretrain.engine import Engine
from pretrain.initialise import initialise
from pretrain.main import resolve
from pretrain.masking import MaskedBatch
from pretrain.model import LateMaskModel
from pretrain.ranks import Launch, join
from pretrain.recipe import MaskingConfig, ModelConfig

SHARDS, SEQUENCES, SEQ_LEN, VOCAB = 24, 512, 128, 2048
WINDOW = 2


def write(folder: Path, url: str) -> None:
    """The data set, to a folder and to a URL."""
    write_random_folder(
        folder, shards=SHARDS, sequences=SEQUENCES, seq_len=SEQ_LEN, vocab_size=VOCAB, block=256
    )
    filesystem, root = fsspec.url_to_fs(url)
    for file in folder.iterdir():
        filesystem.put_file(str(file), f"{root}/{file.name}")


def config_for(path: str, folder: Path) -> PretrainConfig:
    """A model of two layers that is trained from `path`."""
    return PretrainConfig(
        data=DataConfig(
            path=path,
            cache_dir=str(folder / "cache"),
            shuffle_shards=WINDOW,
            global_batch_size=64,
            micro_batch_size=32,
        ),
        run=RunConfig(output_dir=str(folder / "run"), precision="fp32"),
        budget=BudgetConfig(steps=10**6),
        masking=MaskingConfig(insert_layer=1),
        model=ModelConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
        ),
    )


def measure(url: str, folder: Path, segments: int, steps: int) -> dict[str, list[list[float]]]:
    """[data wait, whole step] in seconds, by where the data was, of every step."""
    write(folder / "data", url)
    paths = {"folder": str(folder / "data"), "object store": url}
    config = config_for(paths["folder"], folder)
    device = join(Launch(), run="benchmark")
    config = resolve(config, ShardFolder(config.data.path))
    model = LateMaskModel(config.model, config.masking)
    model.sequence_length = SEQ_LEN
    initialise(model, seed=0)
    engine = Engine(model, config, device)
    streams: dict[str, Iterator[list[MaskedBatch]]] = {}
    for name, path in paths.items():
        batches = Batches(
            ShardFolder.from_config(replace(config.data, path=path)),
            seed=0,
            global_batch_size=config.data.global_batch_size,
            micro_batch_size=config.data.micro_batch_size,
            shuffle_shards=WINDOW,
        )
        streams[name] = batches.steps(0, config.masking)
    found: dict[str, list[list[float]]] = {name: [] for name in paths}
    for _ in range(segments):
        for name, stream in streams.items():
            for _ in range(steps):
                begin = time.perf_counter()
                batch = next(stream)
                waited = time.perf_counter() - begin
                engine.forward_backward(batch)
                engine.update(1e-3, skip=False)
                found[name].append([waited, time.perf_counter() - begin])
    return found


def report(found: dict[str, list[list[float]]], segments: int) -> str:
    """As markdown."""
    lines = [
        f"# Steps with data in an object store\n\n{describe(torch.device('cpu'))}.",
        f"{SHARDS} shards of {SEQUENCES} sequences of {SEQ_LEN}, a window of {WINDOW};",
        f"{segments} segments of each in turn.\n",
        "| data | steps | median step, s | mean step, s | data wait, share | longest wait, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, rows in found.items():
        waits, whole = zip(*rows, strict=True)
        lines.append(
            f"| {name} | {len(rows)} | {statistics.median(whole):.4f} | "
            f"{statistics.mean(whole):.4f} | {sum(waits) / sum(whole):.2%} | {max(waits):.3f} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.object_store", description=__doc__)
    parser.add_argument("url", help="an empty folder in a bucket")
    parser.add_argument("--segments", type=int, default=6)
    parser.add_argument("--steps", type=int, default=16, help="of each segment")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.url, Path(folder), args.segments, args.steps)
    print(report(found, args.segments))


if __name__ == "__main__":
    main(sys.argv[1:])
