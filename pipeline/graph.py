"""The Beam graphs, and the only file that knows Beam.

    clean_and_deduplicate: chunks | read, clean   > hash space | match pairs > all | settle
    tokenize_and_shard:    pieces | tokenize      > all        | cut   > shards | pack, write

A graph is a chain of stages: elements are spread over the workers, worked on, and their counts
summed; the next stage begins from the sum. That is chosen so that every runner does it right:
elements are chunks, parts and shards, never single documents; files carry the data, and only
numbers go between; one leaf, no tagged outputs, nothing at the end of a bundle, counts as data. A
stage that doesn't find its predecessor's elements all done fails the run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline.cleaning import documents
from pipeline.config import Config
from pipeline.dedup import duplicates
from pipeline.errors import PipelineError
from pipeline.shards import shard
from pipeline.sources.records import Chunk
from pipeline.store import pieces, plans, work
from pipeline.tokens import encoded, tokenizer

Counts = dict[str, int]


class Stage(NamedTuple):
    """What there is to do, as of the moment when the stage begins, and how one of it is done."""

    name: str
    elements: Callable[[Path, Config], list[Any]]
    work: Callable[[Path, Config, Any], Counts]


def clean_and_deduplicate(folder: Path, config: Config, options: list[str]) -> Counts:
    """Write the pieces of every chunk, and which documents are duplicates."""
    stages = [
        Stage("read and clean", _chunks, _clean),
        Stage("match", _parts, _match),
        Stage("settle", _once, _settle),
    ]
    return _run(folder, config, stages, "deduplicated.json", options)


def tokenize_and_shard(folder: Path, config: Config, options: list[str]) -> Counts:
    """Write the tokens of every piece, then every shard."""
    stages = [
        Stage("tokenize", _pieces, _tokenize),
        Stage("cut", _once, _cut),
        Stage("pack and write", _shards, _write_shard),
    ]
    return _run(folder, config, stages, "sharded.json", options)


def beam_option_names() -> set[str]:
    """Names of every option that some part of Beam takes, without the dashes."""
    with contextlib.suppress(ImportError):  # Dask's options are known once its runner is
        import apache_beam.runners.dask.dask_runner  # noqa: F401
    parser = _BeamArgumentParser(add_help=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)  # the names of values aren't always those of options
    return {name.removeprefix("--") for name in parser._option_string_actions}


def match_url(pattern: str) -> list[tuple[str, int]]:
    """(path, bytes) of what a URL or a pattern of URLs names."""
    found = FileSystems.match([pattern])[0].metadata_list
    return [(entry.path, int(entry.size_in_bytes)) for entry in found]


def open_url(path: str) -> IO[bytes]:
    """The bytes behind a URL as they lie there."""
    plain = CompressionTypes.UNCOMPRESSED
    return cast(IO[bytes], FileSystems.open(path, compression_type=plain))


def _chunks(folder: Path, config: Config) -> list[Chunk]:
    return plans.load(folder) or []


def _clean(folder: Path, config: Config, chunk: Chunk) -> Counts:
    return {"pieces": len(documents.clean_chunk(folder, chunk, config)["pieces"])}


def _parts(folder: Path, config: Config) -> list[int]:
    return list(range(duplicates.parts(folder, len(_chunks(folder, config)))))


def _match(folder: Path, config: Config, part: int) -> Counts:
    chunks, parts = len(_chunks(folder, config)), len(_parts(folder, config))
    return {"pairs": duplicates.match(folder, chunks, part, parts, config.near_duplicates)}


def _once(folder: Path, config: Config) -> list[int]:
    return [0]


def _settle(folder: Path, config: Config, _: int) -> Counts:
    return duplicates.settle(folder, len(_chunks(folder, config)), len(_parts(folder, config)))


def _pieces(folder: Path, config: Config) -> list[str]:
    return pieces.pieces(folder, len(_chunks(folder, config)))


def _tokenize(folder: Path, config: Config, piece: str) -> Counts:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one worker a core is the runner's business
    model = tokenizer.load(folder / tokenizer.FILES[0])
    receipt = encoded.tokenize_piece(folder, piece, config, model)
    return {"tokens": receipt["tokens"]}


def _cut(folder: Path, config: Config, _: int) -> Counts:
    encoded.cut(folder, _pieces(folder, config), config.shards)
    return {}


def _shards(folder: Path, config: Config) -> list[int]:
    return list(range(len(shard.shard_list(config))))


def _write_shard(folder: Path, config: Config, number: int) -> Counts:
    receipt = shard.write_shard(folder, number, config, _pieces(folder, config))
    return {"rows": receipt["sequences"]}


def _run(
    folder: Path, config: Config, stages: list[Stage], summary: str, options: list[str]
) -> Counts:
    """Run a chain of stages; the sum of the last one's counts, also written under `summary`."""
    path = folder / work.WORK / summary
    path.unlink(missing_ok=True)
    with _pipeline(options) as pipeline:
        counts = pipeline | "begin" >> beam.Create([{}])
        before: Stage | None = None
        for stage in stages:
            counts = (
                counts
                | f"{stage.name}: list"
                >> beam.FlatMap(_elements, stage, before, str(folder), config)
                | f"{stage.name}: spread" >> beam.Reshuffle()
                | stage.name >> beam.Map(_work, stage, str(folder), config)
                | f"{stage.name}: sum" >> beam.CombineGlobally(_sum)
            )
            before = stage
        _ = counts | "write sum" >> beam.Map(_write_sum, stages[-1], str(path), str(folder), config)
    return work.load_json(path) or {}


def _elements(
    counts: Counts, stage: Stage, before: Stage | None, folder: str, config: Config
) -> Iterator[Any]:
    if not _failed(counts, before, folder, config):
        yield from stage.elements(Path(folder), config)


def _failed(counts: Counts, stage: Stage | None, folder: str, config: Config) -> bool:
    """Whether a stage has met a user's error; RuntimeError when elements of it went lost."""
    if counts.get("failed") or (stage and not counts):
        return True
    expected = len(stage.elements(Path(folder), config)) if stage else 0
    if (done := counts.get("done", 0)) != expected:
        assert stage
        raise RuntimeError(f"{stage.name}: the runner brought {done} of {expected} elements")
    return False


def _work(element: Any, stage: Stage, folder: str, config: Config) -> Counts:
    try:
        return {**stage.work(Path(folder), config, element), "done": 1}
    except PipelineError as problem:  # a user's problem: told by the run, not by a traceback
        work.leave_error(Path(folder), problem)
        return {"failed": 1}


def _sum(counts: Iterable[Counts]) -> Counts:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _write_sum(counts: Counts, stage: Stage, path: str, folder: str, config: Config) -> None:
    if not _failed(counts, stage, folder, config):
        work.write_json(Path(path), counts)


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
