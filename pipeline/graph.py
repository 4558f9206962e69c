"""The two Beam graphs, and the only file that knows Beam.

    clean_and_deduplicate: chunks | read, clean | group by hash | keep one of equals | sum
    tokenize_and_shard:    chunks | tokenize    | group by shard | pack, write        | sum

What they are made of is chosen so that every runner does it right: elements are chunks and shards,
never single documents; files carry the data and small records go between; one leaf, no tagged
outputs, nothing at the end of a bundle, and counts as data. Both return what the leaf has summed,
so that a runner that lost something is found out by `pipeline.balance`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline import dedup, documents, shards, tokenizer, tokens, work
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.sources import Chunk
from pipeline.split import SplitName


def clean_and_deduplicate(
    chunks: list[Chunk], config: Config, folder: Path, options: list[str]
) -> dict[str, int]:
    """Write documents and duplicates of every chunk; sums of chunks, kept, duplicates."""
    summary = folder / work.WORK / "deduplicated.json"
    with _pipeline(options) as pipeline:
        _ = (
            pipeline
            | "chunks" >> beam.Create(chunks)
            | "spread chunks" >> beam.Reshuffle()
            | "read and clean" >> beam.FlatMap(_read_and_clean, config, str(folder))
            | "by hash" >> beam.GroupByKey()
            | "keep one of equals" >> beam.FlatMap(_keep_one_of_equals)
            | "by chunk" >> beam.GroupByKey()
            | "write duplicates" >> beam.Map(_write_duplicates, str(folder))
            | "sum" >> beam.CombineGlobally(_sum)
            | "write sum" >> beam.Map(_write_sum, str(summary))
        )
    return work.load_json(summary) or {}


def tokenize_and_shard(
    chunks: list[Chunk], config: Config, folder: Path, options: list[str]
) -> dict[str, int]:
    """Write tokens of every chunk, then every shard; sums of chunks, shards, documents."""
    summary = folder / work.WORK / "sharded.json"
    with _pipeline(options) as pipeline:
        _ = (
            pipeline
            | "chunks" >> beam.Create([chunk.index for chunk in chunks])
            | "spread chunks" >> beam.Reshuffle()
            | "tokenize" >> beam.FlatMap(_tokenize, config, str(folder))
            | "by shard" >> beam.GroupByKey()
            | "pack and write" >> beam.Map(_write_shard, config, str(folder), len(chunks))
            | "sum" >> beam.CombineGlobally(_sum)
            | "write sum" >> beam.Map(_write_sum, str(summary))
        )
    return work.load_json(summary) or {}


def beam_option_names() -> set[str]:
    """Names of every option that some part of Beam takes, without the dashes."""
    return set(PipelineOptions([]).get_all_options())


def _read_and_clean(
    chunk: Chunk, config: Config, folder: str
) -> Iterator[tuple[int, tuple[int, list[dedup.Record]]]]:
    error = work.error_path(Path(folder), chunk.index)
    try:
        documents.clean_chunk(Path(folder), chunk, config)
    except PipelineError as problem:  # a user's problem: told by the run, not by a traceback
        work.write_atomic(error, str(problem).encode())
        return
    found = dedup.partition_records(documents.read_documents(Path(folder), chunk.index))
    for partition, records in found.items():
        yield partition, (chunk.index, records)


def _keep_one_of_equals(
    group: tuple[int, Iterable[tuple[int, list[dedup.Record]]]],
) -> Iterator[tuple[int, tuple[list[int], int]]]:
    for chunk, dropped, kept in dedup.duplicates(group[1]):
        yield chunk, (dropped, kept)


def _write_duplicates(
    group: tuple[int, Iterable[tuple[list[int], int]]], folder: str
) -> dict[str, int]:
    chunk, partitions = group[0], list(group[1])
    dropped = sorted(ordinal for ordinals, _ in partitions for ordinal in ordinals)
    work.write_json(documents.duplicates_path(Path(folder), chunk), dropped)
    kept = sum(kept for _, kept in partitions)
    return {"chunks": 1, "kept": kept, "duplicates": len(dropped)}


def _tokenize(chunk: int, config: Config, folder: str) -> Iterator[tuple[int, int]]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one worker a core is the runner's business
    model = tokenizer.load(Path(folder) / tokenizer.FILES[0])
    tokens.tokenize_chunk(Path(folder), chunk, config, model)
    for shard in range(config.shards.train + config.shards.valid):
        yield shard, chunk


def _write_shard(
    group: tuple[int, Iterable[int]], config: Config, folder: str, chunks: int
) -> dict[str, int]:
    number, arrived = group[0], len(list(group[1]))
    if arrived != chunks:
        raise RuntimeError(f"shard {number}: the runner brought {arrived} of {chunks} chunks")
    split: SplitName = "train" if number < config.shards.train else "valid"
    shard = number - (config.shards.train if split == "valid" else 0)
    receipt = shards.write_shard(Path(folder), split, shard, config, chunks)
    return {"shards": 1, split: receipt["documents"]}


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _write_sum(total: dict[str, int], path: str) -> None:
    work.write_json(Path(path), total)


def _pipeline(options: list[str]) -> beam.Pipeline:
    """A pipeline on the runner of `options`, or in worker processes of this machine.

    The plain DirectRunner would look for Prism first; the in-process runner is named instead.
    """
    parsed = PipelineOptions(options)
    if parsed.get_all_options()["runner"] not in (None, "DirectRunner"):
        return beam.Pipeline(options=parsed)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)  # errors in workers are raised
    workers = SubprocessSDKEnvironment.from_command_string(f"{sys.executable} -m pipeline.worker")
    local = [f"--direct_num_workers={os.cpu_count()}", *options]  # the last one counts
    return beam.Pipeline(FnApiRunner(default_environment=workers), options=PipelineOptions(local))
