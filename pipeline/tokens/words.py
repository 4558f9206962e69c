"""Token ids of texts, each distinct word tokenized once: the same ids, in a third of the time.

A word is what stands between blanks, with the one blank before it and without the stops behind it.
Neither GPT-2's splitting nor BERT's makes one token of parts of two words, so a text's ids are
those of its words in a row; words that were met before come from memory. Texts of tokenizers that
split otherwise go through the library as they are. What a text says is never a special token: a
`</s>` that somebody wrote about ends no document.
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import numpy as np
from tokenizers import Tokenizer

# Python's \s also has \x1c to \x1f, which are no blanks to the tokenizers.
_BLANK = r"\t\n\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_UNSURE = ("\x0b", "\x0c", "\x85")  # a blank to one kind, nothing at all to the other
_STOP = r""".,;:!?)"”"""  # both kinds part these from plain letters
_WORDS = re.compile(
    f" ?[A-Za-z]+(?=[{_STOP}]+(?:[{_BLANK}]|$))|[{_STOP}]+(?=[{_BLANK}]|$)"
    f"| ?[^{_BLANK}]+|[{_BLANK}]+(?![^{_BLANK}])|[{_BLANK}]+"
)
_REMEMBERED_CHARACTERS = 4_000_000  # of words: some 400,000 words, and 80 MB


class Words:
    """One tokenizer, and the ids of the words that it has met.

    Threads may share one: an engine may run several workers as threads of one process.
    """

    def __init__(self, tokenizer: Tokenizer, dtype: str) -> None:
        content = json.loads(tokenizer.to_str())
        if content["model"]["type"] == "Unigram":
            tokenizer = _without_special_pieces(content)
        tokenizer.encode_special_tokens = True  # as any other text
        self._tokenizer = tokenizer
        self._dtype = dtype
        self._by_words = _splits_at_blanks(content)
        self._lock = threading.Lock()  # guards the two below, not the tokenizer
        self._ids: dict[str, bytes] = {}
        self._characters = 0

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """The ids of every text, without special tokens around them."""
        if not self._by_words or any(sign in text for text in texts for sign in _UNSURE):
            return [np.frombuffer(ids, self._dtype) for ids in self._encoded(texts)]
        words = [_WORDS.findall(text) for text in texts]
        known = self._ids_of(set().union(*words)).__getitem__
        return [np.frombuffer(b"".join(map(known, found)), self._dtype) for found in words]

    def _ids_of(self, words: set[str]) -> dict[str, bytes]:
        """A table that has the ids of these words, and may gain others but never loses any."""
        with self._lock:
            if self._characters > _REMEMBERED_CHARACTERS:
                self._ids = {}  # a new table: another thread may still read the old one
                self._characters = 0
            table = self._ids
            new = [word for word in words if word not in table]
        ids = self._encoded(new)  # outside the lock: the library lets other threads work
        with self._lock:
            table.update(zip(new, ids, strict=True))
            if table is self._ids:
                self._characters += sum(map(len, new))
        return table

    def _encoded(self, texts: list[str]) -> list[bytes]:
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(one.ids, self._dtype).tobytes() for one in found]


def _without_special_pieces(content: dict[str, Any]) -> Tokenizer:
    """A Unigram tokenizer that finds none of its special tokens in a text.

    They are entries of its vocabulary like all others, so they keep their ids under names that no
    text holds.
    """
    special = {token["content"] for token in content["added_tokens"] if token["special"]}
    model = content["model"]
    vocab = [
        [f"\0{index}" if piece in special else piece, score]
        for index, (piece, score) in enumerate(model["vocab"])
    ]
    others = [token for token in content["added_tokens"] if not token["special"]]
    return Tokenizer.from_str(
        json.dumps(
            content
            | {"model": model | {"vocab": vocab}, "added_tokens": others, "post_processor": None}
        )
    )


def _splits_at_blanks(content: dict[str, Any]) -> bool:
    """Whether the tokenizer of a tokenizer.json is known to: GPT-2's kind and BERT's are."""
    if any(not token["special"] or token["normalized"] for token in content["added_tokens"]):
        return False
    if content["model"].get("dropout"):
        return False
    splitting, normalizer = content["pre_tokenizer"] or {}, content["normalizer"] or {}
    if splitting.get("type") == "ByteLevel":
        return splitting["use_regex"] and not splitting["add_prefix_space"] and not normalizer
    return splitting.get("type") == "BertPreTokenizer" and normalizer.get("type") in (
        None,
        "BertNormalizer",
    )
