"""Which ids of a tokenizer are its special tokens: those that frame a sequence, pad, and mask.

Tokenizers trained here have RoBERTa's tokens at RoBERTa's ids. Any other says by its settings which
tokens play these parts; where they are silent, the usual names are looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tokenizers import Tokenizer

from pipeline.errors import PipelineError

_KEYS = {
    "cls": ("cls_token", "bos_token"),
    "sep": ("sep_token", "eos_token"),
    "pad": ("pad_token",),
    "unk": ("unk_token",),
    "mask": ("mask_token",),
}
_USUAL_NAMES = {
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "mask": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens; manifest.json has them as `special_tokens`."""

    cls: int
    """First token of a sequence."""
    sep: int
    """Last token of a sequence, and what stands between two documents."""
    pad: int
    unk: int
    mask: int

    @classmethod
    def robertas(cls, vocab_size: int) -> SpecialTokens:
        """Those of tokenizers trained here, and of manifests of version 1."""
        return cls(cls=0, sep=2, pad=1, unk=3, mask=vocab_size - 1)

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any], file: str) -> SpecialTokens:
        """Those that a manifest states.

        Raises:
            PipelineError: five different ids below `vocab_size` are not there.
        """
        size = manifest["vocab_size"]
        if manifest["version"] == 1:
            return cls.robertas(size)
        stated = manifest.get("special_tokens")
        found = [stated.get(f.name) for f in fields(cls)] if isinstance(stated, dict) else []
        valid = [i for i in found if type(i) is int and 0 <= i < size]
        if len(set(valid)) < len(_KEYS):
            raise PipelineError(
                f"{file}: special_tokens is {stated!r:.100}, expected five different ids below "
                f"vocab_size = {size}: {', '.join(_KEYS)}; make the data again, --overwrite"
            )
        return cls(*valid)


def find_names(tokenizer: Tokenizer, *settings: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that play each part, by part; parts that no token plays are missing.

    One token plays one part: GPT-2's only special token begins sequences, and doesn't end them.

    Args:
        tokenizer: must know the tokens.
        settings: contents of tokenizer_config.json and special_tokens_map.json; the first that
            names a known token counts.
    """
    names: dict[str, str] = {}
    for part, keys in _KEYS.items():
        stated = [_content(s.get(key)) for key in keys for s in settings]
        for token in (*stated, *_USUAL_NAMES[part]):
            known = token is not None and tokenizer.token_to_id(token) is not None
            if known and token not in names.values():
                names[part] = str(token)
                break
    return names


def find(tokenizer: Tokenizer, *settings: Mapping[str, Any]) -> SpecialTokens:
    """The ids of all five.

    Raises:
        PipelineError: the tokenizer lacks one.
    """
    names = find_names(tokenizer, *settings)
    if missing := [part for part in _KEYS if part not in names]:
        expected = " or ".join(_USUAL_NAMES[missing[0]])
        raise PipelineError(
            f"the tokenizer has no {missing[0]} token: neither tokenizer_config.json nor "
            f"special_tokens_map.json names one, and it doesn't know {expected}"
        )
    ids = {part: tokenizer.token_to_id(token) for part, token in names.items()}
    return SpecialTokens(**{part: index for part, index in ids.items() if index is not None})


def _content(value: Any) -> str | None:
    """A token as settings state it: a string, or an object with its content."""
    token = value.get("content") if isinstance(value, dict) else value
    return token if isinstance(token, str) else None
