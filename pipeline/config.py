"""The configuration of a corpus: its sections (sections.py) put together, checked and hashed.

The text under a field is its help on the command line. What decides the bytes of the shards
is in here and nothing else, so `sha256(config)` answers "is this folder the one I asked for?";
runner, workers and the output folder are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, cast, get_args, get_type_hints

from pipeline.credentials import public_values
from pipeline.errors import PipelineError
from pipeline.ranges import below_minimum
from pipeline.sections import (
    MIN_SEQ_LEN,
    Cleaning,
    Decontamination,
    NearDuplicates,
    Packing,
    Shards,
    Source,
    Split,
    Tasks,
    Tokenizer,
)

# All that decides which documents are kept, and how they are chunked.
_DOCUMENT_KEYS = ("sources", "chunk_bytes", "cleaning", "near_duplicates", "decontamination")


@dataclass(kw_only=True)
class Config:
    """Corpora to tar shards: read, clean, deduplicate, split, tokenize, pack, write."""

    output: str
    """Folder for shards, tokenizer and manifest: a path, or s3://BUCKET/FOLDER or gs://…"""
    sources: list[Source]
    """What to read: '[{kind: text, paths: [texts/*.txt]}]', say; --sources.help has the keys."""
    seq_len: int = 128
    """Tokens in a sequence, the ones that begin and end it included."""
    chunk_bytes: int = 8_000_000
    """Input files are worked on in groups of about this many bytes, and documents kept in pieces
    of about this much text: a worker's memory grows with it, not with the corpus."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """Which texts are kept."""
    near_duplicates: NearDuplicates | None = None
    """Also drop near-duplicates; {} for the usual settings. Equal texts always go."""
    decontamination: Decontamination | None = None
    """Drop what overlaps evaluation sets."""
    split: Split = field(default_factory=Split)
    """Shares of validation and tasks."""
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    """Trained or loaded."""
    packing: Packing = field(default_factory=Packing)
    """Documents to sequences."""
    shards: Shards = field(default_factory=Shards)
    """Layout of the tars."""
    tasks: Tasks | None = None
    """Demo tasks; none when empty."""

    def __post_init__(self) -> None:
        """Raise PipelineError naming every impossible key at once."""
        if found := list(self._problems()):
            raise PipelineError("this configuration can't work:\n  " + "\n  ".join(found))

    def _problems(self) -> Iterator[str]:
        """`key: value, what would be right`, for all that can't work, alone or together."""
        if not self.output:
            yield "output: an empty path; give a folder"
        if not self.sources:
            yield "sources: empty; list at least one"
        names = [source.label for source in self.sources]
        for i, source in enumerate(self.sources):
            yield from source.problems(f"sources[{i}].")
            if names.count(source.label) > 1:
                yield f"sources[{i}].name: {source.label!r} twice; ids would clash, rename one"
        yield from below_minimum(self, "", seq_len=MIN_SEQ_LEN, chunk_bytes=1)
        if self.seq_len in self.packing.more_seq_lens:
            yield f"packing.more_seq_lens: {self.seq_len}, is seq_len already; no length twice"
        yield from self.cleaning.problems("cleaning.")
        if self.near_duplicates:
            yield from self.near_duplicates.problems("near_duplicates.")
        if self.decontamination:
            yield from self.decontamination.problems("decontamination.")
        yield from self.split.problems("split.")
        yield from self.tokenizer.problems("tokenizer.")
        yield from self.packing.problems("packing.")
        yield from self.shards.problems("shards.")
        if self.tasks:
            yield from self.tasks.problems("tasks.")
        if (self.tasks is not None) != (self.split.tasks > 0):
            yield "tasks and split.tasks: give both or neither"

    @property
    def seq_lens(self) -> list[int]:
        """All lengths of sequences, that of OUTPUT itself first."""
        return [self.seq_len, *self.packing.more_seq_lens]

    @property
    def dtype(self) -> Literal["uint16", "uint32"]:
        """Smallest unsigned type that holds a token id."""
        return "uint16" if self.tokenizer.vocab_size <= 65_535 else "uint32"

    def content(self) -> dict[str, Any]:
        """All that decides the bytes of the shards, as JSON types.

        So: without `output`, and without credentials in URLs, which may be others tomorrow.
        """
        content = asdict(self)
        del content["output"]
        as_json = json.loads(json.dumps(content))  # keys as JSON has them
        return cast(dict[str, Any], public_values(as_json))

    def has_documents_of(self, content: dict[str, Any]) -> bool:
        """Whether a run with this other `content` has the same clean documents."""
        mine = self.content()
        return all(key in content and content[key] == mine[key] for key in _DOCUMENT_KEYS)

    def sha256(self) -> str:
        """Hash of `content`: the identity of a run."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()


def differing_keys(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines `key: theirs -> ours`, by dotted key, for two JSON-like configs."""
    lines = []
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key, "(absent)"), theirs.get(key, "(absent)")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {b} -> {a}")
    return lines


def section_keys(section: type = Config, name: str = "") -> dict[str, list[str]]:
    """Keys of each section by its dotted name; `""` is the config itself."""
    found = {name: [f.name for f in fields(section)]}
    for key, hint in get_type_hints(section).items():
        for kind in (hint, *get_args(hint)):  # X, X | None or list[X]
            if isinstance(kind, type) and is_dataclass(kind):
                found |= section_keys(kind, f"{name}.{key}".lstrip("."))
    return found
