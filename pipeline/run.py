"""One run, from config to manifest: what is done already is left alone, the rest is done.

The order: claim the folder, plan the chunks (once: the plan is kept, so an interrupted run goes on
with the same input), graph one, tokenizer, graph two, demo tasks, balance, manifest. Beam is
imported only when a graph has something to do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline import balance, decontaminate, examples, pieces, plans, tasks, tokenizer, work
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.progress import Progress
from pipeline.shards import shard_names
from pipeline.tasks import FILES as TASK_FILES
from pipeline.tokens import tokens_path

log = logging.getLogger(__name__)


def run(config: Config, options: list[str], overwrite: bool, progress: Progress) -> dict[str, Any]:
    """Make the data folder of `config`; `options` are Beam's. Returns the manifest."""
    folder = Path(config.output)
    started = time.monotonic()
    work.check_ownership(folder)
    with work.lock(folder):
        manifest = work.begin(folder, config, overwrite)
        if manifest and not (missing := _missing(folder, manifest)):
            log.info("%s: finished already, nothing to do (--overwrite makes it anew)", folder)
            return manifest
        if manifest:
            log.info("%s: rebuilding %s", folder, ", ".join(missing))
        made = _make(folder, config, options, progress)
        if manifest and made != manifest:
            raise PipelineError(
                f"{folder}: the rebuilt shards differ from those in {work.MANIFEST}: the input or "
                "a library has changed since; pass --overwrite to make the whole folder anew"
            )
        work.write_json(folder / work.MANIFEST, made)
        work.remove_strays(folder, {name for *_, name in shard_names(config)})
    log.info("%s: finished in %.0f s", folder, time.monotonic() - started)
    return made


def _make(folder: Path, config: Config, options: list[str], progress: Progress) -> dict[str, Any]:
    chunks = plans.make(folder, config)
    files = sum(len(chunk.files) for chunk in chunks)
    size = sum(file.bytes for chunk in chunks for file in chunk.files)
    log.info("input: %s files, %.1f MB, in %d chunks", f"{files:,}", size / 1e6, len(chunks))
    if config.decontamination:
        decontaminate.write_index(folder, config.decontamination)

    if not (folder / work.WORK / "deduplicated.json").exists() or not all(
        pieces.read_chunk(folder, c.index) for c in chunks
    ):
        graph = _graph()
        targets = [pieces.chunk_path(folder, c.index) for c in chunks]
        with _watched("read and clean", targets, progress):
            graph.clean_and_deduplicate(folder, config, options)
        _raise_errors(folder, "deduplicated.json")
    cleaned = balance.cleaned(folder, len(chunks))
    names = cleaned["pieces"]

    start = time.monotonic()
    progress("tokenizer", 0, 1)
    model = tokenizer.provide(folder, config, names)
    progress("tokenizer", 1, 1)
    log.info(
        "tokenizer: %s tokens, %.1f s", f"{model.get_vocab_size():,}", time.monotonic() - start
    )

    shards = [folder / name for *_, name in shard_names(config)]
    if not all(work.read_receipt(path) for path in shards):
        graph = _graph()
        targets = [*(tokens_path(folder, name) for name in names), *shards]
        with _watched("tokenize and pack", targets, progress):
            graph.tokenize_and_shard(folder, config, options)
        _raise_errors(folder, "sharded.json")
    if config.tasks:
        tasks.write(folder, config, names)
    rejected = b"".join(
        path.read_bytes()
        for chunk in chunks
        if (path := pieces.rejected_path(folder, chunk.index)).exists()
    )
    work.write_atomic(folder / "rejected.jsonl", rejected)
    work.write_json(folder / "dropped.json", examples.collect(folder, len(chunks)))
    return balance.manifest(folder, config, cleaned, files, model.get_vocab_size())


def _graph() -> ModuleType:
    """The graphs; Beam's import warns of Google's packages, which nobody here asked for."""
    logging.disable(logging.WARNING)
    try:
        from pipeline import graph
    finally:
        logging.disable(logging.NOTSET)
    return graph


def _missing(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Files of a finished folder that aren't there, or not in full (cheap: no hashing)."""
    sizes = {
        s["name"]: s["bytes"] for split in manifest["splits"].values() for s in split["shards"]
    }
    names = [*sizes, "tokenizer.json", "tokenizer_config.json", "rejected.jsonl", "dropped.json"]
    if manifest["config"]["tasks"]:
        names += [f"tasks/{name}" for name in TASK_FILES]
    paths = {name: folder / name for name in names}
    return [
        name
        for name, path in paths.items()
        if not path.exists() or path.stat().st_size != sizes.get(name, path.stat().st_size)
    ]


def _raise_errors(folder: Path, summary: str) -> None:
    """PipelineError with what the workers had to say, or when the graph has no sum."""
    errors = work.take_errors(folder)
    if errors:
        rest = f"\n(and {len(errors) - 3} more)" if len(errors) > 3 else ""
        raise PipelineError("\n".join(errors[:3]) + rest)
    if not (folder / work.WORK / summary).exists():
        raise PipelineError("the runner lost the end of the graph: use another --runner")


@contextmanager
def _watched(step: str, targets: list[Path], progress: Progress) -> Iterator[None]:
    """Tell every second how many of `targets` are there: runners report only at their end."""
    ended = threading.Event()

    def watch() -> None:
        while True:
            progress(step, sum(path.exists() for path in targets), len(targets))
            if ended.wait(1):
                return

    start = time.monotonic()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    progress(step, sum(path.exists() for path in targets), len(targets))
    log.info("%s: %d files, %.1f s", step, len(targets), time.monotonic() - start)
