"""One run, from config to manifest: what is done already is left alone, the rest is done.

The order: claim the folder, plan the chunks (once: the plan is kept, so an interrupted run
continues with the same input), the stages, demo tasks, balance, manifest. Beam is imported only
when there is something to do.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from functools import partial
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

from pipeline import provenance, tasks
from pipeline.config import Config
from pipeline.dedup import decontaminate
from pipeline.errors import PipelineError
from pipeline.progress import Progress, Step, watched
from pipeline.report import balance, examples, sources
from pipeline.shards import assign
from pipeline.shards.shard import data_set, shard_list
from pipeline.sources.records import Chunk
from pipeline.store import pieces, plans, splits, work
from pipeline.store.catalog import Catalog
from pipeline.store.folder import Folder
from pipeline.store.lock import lock
from pipeline.tasks import FILES as TASK_FILES
from pipeline.tokens import tokenizer
from pipeline.tokens.encoded import tokens_name

log = logging.getLogger(__name__)


def run(config: Config, options: list[str], overwrite: bool, progress: Progress) -> dict[str, Any]:
    """Make the data folder of `config`; `options` are Beam's. Returns the manifest.

    With `overwrite` a finished local folder is made again beside itself, and replaced when that is
    whole. In a store, where nothing can be renamed, it is removed first.
    """
    folder = Folder.at(config.output)
    started = time.monotonic()
    if folder.local is not None:
        work.recover(folder.local)
    work.check_ownership(folder)
    with lock(folder):
        if overwrite and folder.local is not None and folder.exists(work.MANIFEST):
            new = Folder(str(work.beside(folder.local)))
            with lock(new):
                work.begin(new, config, overwrite=not work.is_of(new, config))
                finished = _finish(new, config, _make(new, config, options, progress))
            work.replace(folder.local)
        else:
            manifest = work.begin(folder, config, overwrite)
            if manifest and not (missing := _missing(folder, manifest)):
                log.info("%s: finished already, nothing to do (--overwrite makes it again)", folder)
                return manifest
            if manifest:
                log.info("%s: rebuilding %s", folder, ", ".join(missing))
            made = _make(folder, config, options, progress)
            if manifest:
                made = {
                    name: balance.as_version(manifest["version"], content)
                    for name, content in made.items()
                }
            if manifest and made["."] != provenance.without(manifest):
                raise PipelineError(
                    f"{folder}: the rebuilt shards differ from those in {work.MANIFEST}: the input "
                    "or a library has changed since; pass --overwrite to make the whole again"
                )
            finished = _finish(folder, config, made)
    log.info("%s: finished in %.0f s", folder, time.monotonic() - started)
    return finished


def _finish(folder: Folder, config: Config, manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Write the manifests, that of the folder itself last, and remove what they don't name.

    Returns the last. One that says the same of the data already stays, and with it the provenance:
    a run that restores a file doesn't change how the data came about.
    """
    made_by = provenance.record()
    written: dict[str, Any] = {}
    for name, content in reversed(manifests.items()):
        data = folder.within(name)
        written = work.load_json(data, work.MANIFEST) or {}
        if provenance.without(written) != content:
            written = content | {provenance.KEY: made_by}
            work.write_json(data, work.MANIFEST, written)
    work.remove_strays(folder, {shard.name for shard in shard_list(folder, config)})
    return written


def _make(
    folder: Folder, config: Config, options: list[str], progress: Progress
) -> dict[str, dict[str, Any]]:
    """Do what isn't done yet; the manifest of every data set in the folder, by its path there."""
    chunks = plans.make(folder, config)
    files = sum(len(chunk.files) for chunk in chunks)
    megabytes = sum(file.bytes for chunk in chunks for file in chunk.files) / 1e6
    whole = len({file.path for chunk in chunks for file in chunk.files})
    log.info("input: %s files, %.1f MB; chunks: %d", f"{whole:,}", megabytes, len(chunks))
    if config.decontamination:
        decontaminate.write_index(folder, config.decontamination)

    tokenizer.take(folder, config)
    if not all(work.read_receipt(folder, shard.name) for shard in shard_list(folder, config)):
        from pipeline.stages import LAST, to_do

        graph = load_graph()
        work.take_errors(folder)  # of a run that was killed
        try:
            with watched(folder, _steps(folder, config, chunks), progress):
                graph.run(folder, config, to_do(folder, config), options)
        except Exception as error:
            _raise_error_of_worker(error)
            raise
        _tell_outcome(folder, config, chunks)
        _raise_errors(folder, LAST)
    totals = balance.deduplicated(folder, config, len(chunks))
    size = tokenizer.size_of(tokenizer.load(folder))
    special = tokenizer.special_tokens(folder)
    if config.tasks:
        tasks.write(folder, splits.decided(folder, config))
    rejected = b"".join(
        folder.read(name)
        for chunk in chunks
        if folder.exists(name := pieces.rejected_name(chunk.index))
    )
    folder.write("rejected.jsonl", rejected)
    work.write_json(folder, "dropped.json", examples.collect(folder, config, len(chunks)))
    return {
        data_set(config, seq_len): balance.manifest(
            folder, config, seq_len, totals, files=files, vocab_size=size, special=special
        )
        for seq_len in config.seq_lens
    }


def _tell_outcome(folder: Folder, config: Config, chunks: list[Chunk]) -> None:
    """Log what became of each source's documents, and fewer shards than were asked for."""
    outcomes = sources.outcomes(folder, config, chunks)
    if outcomes is None:
        return
    log.info("documents by source\n%s", sources.table(outcomes))
    _warn(sources.alarms(outcomes, config))
    asked = {"train": config.shards.train, "valid": config.shards.valid}
    for split, count in assign.shard_counts(folder, config.shards).items():
        wanted = asked[split]
        if wanted is not None and count < wanted:
            log.info(
                "shards.%s: %d instead of %d, which are too many for so few tokens",
                split,
                count,
                wanted,
            )


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        log.warning("WARNING %s", line)


def _steps(folder: Folder, config: Config, chunks: list[Chunk]) -> list[Step]:
    """What a run can be seen to do."""

    def warn_early() -> None:
        _warn(sources.alarms(sources.outcomes(folder, config, chunks) or [], config))

    def tokens() -> list[str]:
        groups = range(Catalog.load(folder).groups)
        return [work.receipt_name(tokens_name(group)) for group in groups]

    def shards() -> list[str]:
        return [work.receipt_name(shard.name) for shard in shard_list(folder, config)]

    deduplicated = balance.NEAR_DUPLICATES if config.near_duplicates else balance.DUPLICATES
    chunk_names = [pieces.chunk_name(chunk.index) for chunk in chunks]
    return [
        Step("read and clean", lambda: chunk_names, partial(_chunk_facts, folder), warn_early),
        Step("deduplicate", lambda: [work.sum_name(deduplicated)]),
        Step("tokenizer", lambda: [tokenizer.FILES[0]]),
        Step("tokenize", tokens, partial(_token_facts, folder)),
        Step("assign documents to shards", lambda: [work.sum_name(assign.STAGE)]),
        Step("pack and write", shards),
    ]


def _chunk_facts(folder: Folder, name: str) -> dict[str, int]:
    counts = work.load_json(folder, name)["counts"].values()
    documents = sum(count["read"] for count in counts)
    return {"documents": documents, "bytes": sum(count.get("characters", 0) for count in counts)}


def _token_facts(folder: Folder, name: str) -> dict[str, int]:
    return {"tokens": work.load_json(folder, name)["tokens"]}


def load_graph() -> ModuleType:
    """The graphs; Beam's import warns of Google's packages, which nobody here asked for."""
    logging.disable(logging.WARNING)
    try:
        from pipeline import graph
    finally:
        logging.disable(logging.NOTSET)
    return graph


def _missing(folder: Folder, manifest: dict[str, Any]) -> list[str]:
    """Files of a finished folder that aren't there, or not in full (cheap: no hashing)."""
    sizes: dict[str, int | None] = dict.fromkeys(("rejected.jsonl", "dropped.json"))
    for part in [".", *(f"seq-{n}" for n in manifest["config"]["packing"]["more_seq_lens"])]:
        for name in (work.MANIFEST, *tokenizer.FILES):
            sizes[str(PurePosixPath(part, name))] = None
        stated = work.load_json(folder.within(part), work.MANIFEST) or {"splits": {}}
        for split in stated["splits"].values():
            sizes |= {str(PurePosixPath(part, s["name"])): s["bytes"] for s in split["shards"]}
    if manifest["config"]["tasks"]:
        sizes |= dict.fromkeys(f"tasks/{name}" for name in TASK_FILES)
    parents = {name.rpartition("/")[0] for name in sizes}
    there = {name: size for parent in parents for name, size in folder.list(parent).items()}
    return [
        name for name, size in sizes.items() if name not in there or size not in (None, there[name])
    ]


def _raise_error_of_worker(error: Exception) -> None:
    """PipelineError where a runner's error is a worker's, which it couldn't leave in the folder."""
    found = re.findall(r"\bPipelineError: (.+?)(?: \[while running .*)?$", str(error), re.MULTILINE)
    if found:
        raise PipelineError(found[-1]) from error


def _raise_errors(folder: Folder, last: str) -> None:
    """PipelineError with what the workers had to say, or when the graph has no end."""
    errors = work.take_errors(folder)
    if errors:
        rest = f"\n(and {len(errors) - 3} more)" if len(errors) > 3 else ""
        raise PipelineError("\n".join(errors[:3]) + rest)
    if not folder.exists(work.sum_name(last)):
        raise PipelineError("the runner lost the end of the graph: use another --runner")
