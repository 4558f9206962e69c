"""What is wrong with a configuration: values that can't work, alone or together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Config


def problems(config: Config) -> Iterator[str]:
    """`key: value, what would be right`, for everything that can't work."""
    if not config.output:
        yield "output: an empty path; give a folder"
    if not config.sources:
        yield "sources: empty; list at least one"
    names = [s.label for s in config.sources]
    for i, source in enumerate(config.sources):
        if source.kind != "python-docs" and not source.paths:
            yield f"sources[{i}].paths: empty, and kind {source.kind} reads files; list some"
        if source.kind == "python-docs" and source.paths:
            yield f"sources[{i}].paths: python-docs finds its files itself; remove the paths"
        if source.weight <= 0:
            yield f"sources[{i}].weight: {source.weight}, must be over 0; or remove the source"
        if names.count(source.label) > 1:
            yield f"sources[{i}].name: {source.label!r} twice; ids would clash, rename one"
    for key, (value, minimum) in _least(config).items():
        if value < minimum:
            yield f"{key}: {value}, must be at least {minimum}"
    for key, share in _shares(config).items():
        if not 0 <= share < 1:
            yield f"{key}: {share}, must be a share in [0, 1)"
    for length in config.packing.more_seq_lens:
        if length < 3 or config.seq_lens.count(length) > 1:
            yield f"packing.more_seq_lens: {length}, must be at least 3 and no length given twice"
    if config.tokenizer.lowercase and config.tokenizer.kind != "wordpiece":
        yield "tokenizer.lowercase: only for kind wordpiece; byte-level BPE keeps case"
    if config.split.valid <= 0:
        yield "split.valid: 0, but a validation shard is always written; try 0.005"
    if config.split.valid + config.split.tasks >= 1:
        yield "split: valid + tasks leave nothing for train"
    if (config.tasks is not None) != (config.split.tasks > 0):
        yield "tasks and split.tasks: give both or neither"


def _least(config: Config) -> dict[str, tuple[int, int]]:
    """Numbers by key, and the least that each must be."""
    tokenizer, shards, tasks = config.tokenizer, config.shards, config.tasks
    numbers = {
        "seq_len": (config.seq_len, 3),
        "chunk_bytes": (config.chunk_bytes, 1),
        "tokenizer.vocab_size": (tokenizer.vocab_size, 256 + 5),  # bytes and special tokens
        "tokenizer.sample_bytes": (tokenizer.sample_bytes, 1),
        "shards.train": (shards.train, 1),
        "shards.valid": (shards.valid, 1),
        "shards.block_sequences": (shards.block_sequences, 1),
        "cleaning.min_characters": (config.cleaning.min_characters, 1),
        "cleaning.max_characters": (
            config.cleaning.max_characters,
            config.cleaning.min_characters,
        ),
    }
    if near := config.near_duplicates:
        numbers |= {
            f"near_duplicates.{k}": (getattr(near, k), 1) for k in ("ngram", "bands", "rows")
        }
    if config.decontamination:
        numbers |= {
            "decontamination.ngram": (config.decontamination.ngram, 1),
            "decontamination.min_words": (
                config.decontamination.min_words,
                config.decontamination.ngram,
            ),
        }
    if tasks:
        numbers |= {
            "tasks.libraries": (tasks.libraries, 2),
            "tasks.library_train": (tasks.library_train, tasks.libraries),
            "tasks.library_dev": (tasks.library_dev, tasks.libraries),
            "tasks.same_docstring_libraries": (tasks.same_docstring_libraries, 3),
            "tasks.same_docstring_train": (tasks.same_docstring_train, 2),
            "tasks.same_docstring_dev": (tasks.same_docstring_dev, 2),
            "tasks.max_characters": (tasks.max_characters, 50),
        }
    return numbers


def _shares(config: Config) -> dict[str, float]:
    """Numbers by key that are shares of a whole."""
    shares = {
        "cleaning.min_alphabetic": config.cleaning.min_alphabetic,
        "split.valid": config.split.valid,
        "split.tasks": config.split.tasks,
    }
    if config.near_duplicates:
        shares["near_duplicates.threshold"] = config.near_duplicates.threshold
    if config.decontamination:
        shares["decontamination.overlap"] = config.decontamination.overlap
    return shares
