"""Somebody else's tokenizer with RoBERTa's special tokens at RoBERTa's ids.

The contract (docs/formats.md, section A) fixes `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3 and `<mask>`
last. RoBERTa's own tokenizer has them there and stays as it is. Any other keeps its normaliser, its
splitting, its model and the order of its vocabulary; its own special tokens make room for these.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from pipeline.errors import PipelineError

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3; <mask> comes last
_MASK = AddedToken("<mask>", lstrip=True, normalized=False, special=True)


def adopted(path: str) -> Tokenizer:
    """The tokenizer in a folder or on the Hub, renumbered where it has to be."""
    tokenizer = _found(path)
    expected = robertas_ids(tokenizer)
    if all(tokenizer.token_to_id(token) == i for token, i in expected.items()):
        return tokenizer
    content = json.loads(tokenizer.to_str())
    kind = content["model"].get("type")
    if kind not in ("BPE", "WordPiece"):
        raise PipelineError(
            f"tokenizer.path: {path} is a {kind} model whose special tokens aren't at RoBERTa's "
            "ids; only BPE and WordPiece can be renumbered"
        )
    return finished(Tokenizer.from_str(json.dumps(_renumbered(content))))


def finished(tokenizer: Tokenizer) -> Tokenizer:
    """Add `<mask>` behind all others, and RoBERTa's way of framing one sequence or two."""
    tokenizer.add_special_tokens([*SPECIAL, _MASK])
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", 2),
            ("<s>", 0),
            trim_offsets=True,
            add_prefix_space=tokenizer.pre_tokenizer.add_prefix_space,
        )
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> $B </s>",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        )
    return tokenizer


def robertas_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Where the special tokens must stand in a vocabulary of this size."""
    return {**{t: i for i, t in enumerate(SPECIAL)}, "<mask>": tokenizer.get_vocab_size() - 1}


def _found(path: str) -> Tokenizer:
    folder = Path(path)
    try:
        if (folder / "tokenizer.json").exists():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        if (folder / "merges.txt").exists():  # GPT-2 and RoBERTa as they were first published
            files = str(folder / "vocab.json"), str(folder / "merges.txt")
            tokenizer = Tokenizer(models.BPE.from_file(*files))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            return tokenizer
        if folder.is_dir():
            raise PipelineError(
                f"tokenizer.path: {path} has neither tokenizer.json nor vocab.json and merges.txt"
            )
        return Tokenizer.from_pretrained(path)
    except PipelineError:
        raise
    except Exception as error:  # tokenizers and the Hub raise nothing narrower
        raise PipelineError(
            f"tokenizer.path: {path} is no folder of a tokenizer, nor one on the Hub ({error})"
        ) from error


def _renumbered(content: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json with our special tokens first, and without its own."""
    model = content["model"]
    own = {token["content"] for token in content["added_tokens"] if token["special"]}
    own |= {*SPECIAL, "<mask>"}
    words = sorted((i, word) for word, i in model["vocab"].items() if word not in own)
    order = [*SPECIAL, *(word for _, word in words)]
    model["vocab"] = {word: i for i, word in enumerate(order)}
    if model.get("unk_token"):
        model["unk_token"] = "<unk>"
    return {**content, "added_tokens": [], "post_processor": None, "model": model}
