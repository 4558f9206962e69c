"""manifest.json of a data set (docs/formats.md, section A): its checks and its identity.

A manifest may come from anywhere, so it is checked as a whole before any file that it names is
opened, fetched or written.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pretrain.errors import PretrainError
from pretrain.vocabulary import PARTS, Vocabulary

FORMAT = "latemask-shards"
VERSIONS = (1, 2)  # 1 has no special_tokens: they are RoBERTa's
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_RESERVED_NAMES = {"manifest.json", *TOKENIZER_FILES}
_DTYPES = ("uint16", "uint32")
_KINDS = {dict: "an object", list: "a list", str: "a string", int: "a whole number, 0 or more"}
_REMEDY = "make the data set again with `python -m pipeline --config FILE --output FOLDER`"


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, as manifests and checkpoints state it."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parse_manifest(raw: bytes, file: str) -> dict[str, Any]:
    """The manifest in `raw`, with all that pretraining needs there and of the right type.

    Args:
        raw: the bytes of manifest.json.
        file: the path or URL that they come from, for errors.

    Raises:
        PretrainError: not a manifest, of another version, or it names a file outside its folder.
    """
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise PretrainError(f"{file} is not JSON ({error}); {_REMEDY}") from None
    if not isinstance(manifest, dict):
        raise PretrainError(f"{file} holds {_shown(manifest)}, expected an object; {_REMEDY}")
    found = (manifest.get("format"), manifest.get("version"))
    if found not in [(FORMAT, version) for version in VERSIONS]:
        raise PretrainError(
            f"{file}: format and version are {_shown(found)}, expected '{FORMAT}' and 1 or 2; "
            "make the data set again with this version of the pipeline"
        )
    top = _Entry(manifest, "", file)
    vocabulary_of(manifest, file)
    if top.get("seq_len", int) < 3:
        raise top.error("seq_len", "3 or more: cls, a token, sep")
    top.get("tokenizer_sha256", str)
    if top.get("dtype", str) not in _DTYPES:
        raise top.error("dtype", " or ".join(_DTYPES))
    splits = top.entry("splits")
    for name in splits.content:
        _check_split(splits.entry(name))
    return manifest


def vocabulary_of(manifest: dict[str, Any], file: str) -> Vocabulary:
    """The ids that a manifest states.

    Raises:
        PretrainError: they are not five different ids below `vocab_size`.
    """
    top = _Entry(manifest, "", file)
    size = top.get("vocab_size", int)
    if manifest["version"] == 1:
        if size < 6:
            raise top.error("vocab_size", "6 or more: five special tokens, and another")
        return Vocabulary.robertas(size)
    stated = top.entry("special_tokens")
    ids = {part: stated.get(part, int) for part in PARTS}
    for part, index in ids.items():
        if index >= size:
            raise stated.error(part, f"an id below vocab_size = {size}")
        if list(ids.values()).count(index) > 1:
            raise stated.error(part, "an id that no other special token has")
    vocabulary = Vocabulary(size=size, **ids)
    if not len(vocabulary.ordinary):
        raise top.error("vocab_size", "6 or more: five special tokens, and another")
    return vocabulary


def content_sha256(raw: bytes) -> str:
    """The identity of the data: SHA-256 of a manifest's bytes, as they are without `provenance`.

    How the data came about may change when the same shards are made again, and a checkpoint or a
    cache must not take them for others.
    """
    manifest = json.loads(raw)
    if "provenance" in manifest:
        del manifest["provenance"]
        raw = (json.dumps(manifest, indent=1) + "\n").encode()  # as the pipeline writes it
    return hashlib.sha256(raw).hexdigest()


class _Entry:
    """An object in a manifest, and the keys that lead to it, for errors."""

    def __init__(self, content: dict[str, Any], path: str, file: str) -> None:
        self.content, self._path, self._file = content, path, file

    def get(self, key: str, kind: type) -> Any:
        """The value of a key, which must be of this kind."""
        value = self.content.get(key)
        negative = kind is int and isinstance(value, int) and value < 0
        if not isinstance(value, kind) or isinstance(value, bool) or negative:
            raise self.error(key, _KINDS[kind])
        return value

    def entry(self, key: str) -> _Entry:
        """The object at a key."""
        return _Entry(self.get(key, dict), f"{self._path_of(key)}.", self._file)

    def entries(self, key: str) -> list[_Entry]:
        """The objects of the list at a key."""
        values = self.get(key, list)
        numbered = _Entry(
            {f"{key}[{i}]": value for i, value in enumerate(values)}, self._path, self._file
        )
        return [numbered.entry(name) for name in numbered.content]

    def error(self, key: str, expected: str) -> PretrainError:
        """That the value of a key is not what is expected."""
        found = f"is {_shown(self.content[key])}" if key in self.content else "is missing"
        return PretrainError(
            f"{self._file}: {self._path_of(key)} {found}, expected {expected}; {_REMEDY}"
        )

    def _path_of(self, key: str) -> str:
        return self._path + (key if key.isprintable() else repr(key))  # an error is one line


def _check_split(split: _Entry) -> None:
    split.get("tokens", int)
    found = 0
    for shard in split.entries("shards"):
        if not _is_plain_file_name(shard.content.get("name")):
            raise shard.error("name", "a plain file name, such as 'train-00000-of-00001.tar'")
        shard.get("bytes", int)
        for block in shard.entries("blocks"):
            block.get("offset", int)
            found += block.get("sequences", int)
    if split.get("sequences", int) != found:
        raise split.error("sequences", f"{found}, which is what the blocks of its shards hold")


def _is_plain_file_name(name: object) -> bool:
    """Whether this names a visible file in the manifest's own folder, other than its metadata."""
    return (
        isinstance(name, str)
        and name.isprintable()  # no control characters, and nothing that a path can't be made of
        and not name.startswith(".")
        and not {"/", "\\"} & set(name)
        and name not in {"", *_RESERVED_NAMES}
    )


def _shown(value: object) -> str:
    """A value from a manifest, short enough for a line."""
    return f"{value!r:.100}"
