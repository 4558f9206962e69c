"""Text rows → token rows, once per task and tokenizer, shared by every job that needs them."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from finetune.errors import FinetuneError
from finetune.tasks import Split, TaskData

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Backbone:
    """What every job of a sweep shares of the model: its configuration and its tokenizer."""

    name: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, name: str) -> "Backbone":
        """From a folder or a Hub name; FinetuneError when there is no such model."""
        try:
            config = AutoConfig.from_pretrained(name)
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            kind = "folder" if Path(name).exists() else "folder, and no model of the Hub in reach"
            raise FinetuneError(
                f"--model_name_or_path {name}: not a loadable model {kind}: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        if tokenizer.pad_token_id is None:
            raise FinetuneError(f"The tokenizer of {name} has no padding token.")
        # A padding id the model doesn't share would shift RoBERTa's position ids.
        if config.pad_token_id not in (None, tokenizer.pad_token_id):
            raise FinetuneError(
                f"{name}: the tokenizer pads with {tokenizer.pad_token_id}, its config.json says "
                f"{config.pad_token_id}; RoBERTa's positions depend on it. Mend config.json."
            )
        return cls(name, config, tokenizer)

    @property
    def positions(self) -> int:
        """Longest input in tokens: the position table less the rows RoBERTa's numbering skips."""
        table = getattr(self.config, "max_position_embeddings", None) or 512
        skips = "roberta" in self.config.model_type
        limit = table - (self.tokenizer.pad_token_id + 1 if skips else 0)
        return min(limit, self.tokenizer.model_max_length)


@dataclass(frozen=True)
class EncodedTask:
    """A task's rows as the Trainer takes them; `dev_order` etc. restore the file's order."""

    data: TaskData
    train: Rows
    dev: dict[str, Rows]
    test: dict[str, Rows]


def encode_task(data: TaskData, backbone: Backbone, max_seq_length: int) -> EncodedTask:
    """Tokenize every split to at most `max_seq_length` tokens, never more than the model has."""
    length = max_seq_length
    if length > backbone.positions:
        logger.warning(
            "max_seq_length %d: %s has %d positions; using those",
            length,
            backbone.name,
            backbone.positions,
        )
        length = backbone.positions
    return EncodedTask(
        data,
        _encode(data.train, backbone, length),
        {suffix: _encode(split, backbone, length) for suffix, split in data.dev.items()},
        {suffix: _encode(split, backbone, length) for suffix, split in data.test.items()},
    )


def _encode(split: Split, backbone: Backbone, length: int) -> Rows:
    columns = [list(column) for column in zip(*split.texts, strict=True)]
    encoded = backbone.tokenizer(*columns, truncation=True, max_length=length)
    names = list(encoded)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*encoded.values(), strict=True)]
    if split.targets is not None:
        for row, target in zip(rows, split.targets, strict=True):
            row["labels"] = target
    return rows


def by_length(rows: Rows) -> np.ndarray:
    """Order [N] in which batches hold rows of like length, longest first."""
    lengths = np.array([len(row["input_ids"]) for row in rows])
    return np.argsort(-lengths, kind="stable")
