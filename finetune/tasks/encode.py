"""Text rows → token rows, once per task and tokenizer, shared by every job that needs them."""

import hashlib
import logging
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from finetune.errors import FinetuneError
from finetune.tasks import Split, Task, TaskData
from finetune.tasks.rows import Rows, by_length

logger = logging.getLogger(__name__)

__all__ = ["Backbone", "EncodedTask", "Rows", "by_length", "encode_task"]

# The newest one wants a newer protobuf than Beam.
SENTENCEPIECE = "sentencepiece>=0.2.1,<0.2.3"
# What the loss and the metrics leave out.
IGNORED = -100


@dataclass(frozen=True)
class Backbone:
    """What every job of a sweep shares of the model: its configuration and its tokenizer."""

    name: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, name: str) -> "Backbone":
        """From a folder or a Hub name; FinetuneError when there is no such model, or no encoder."""
        try:
            config = AutoConfig.from_pretrained(name)
            _require_encoder(name, config)
            tokenizer = _load_tokenizer(name)
        except (ImportError, OSError, ValueError) as error:
            kind = "folder" if Path(name).exists() else "folder, and no model of the Hub in reach"
            raise FinetuneError(
                f"--model_name_or_path {name}: not a loadable model {kind}: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        if tokenizer.pad_token_id is None:
            raise FinetuneError(f"The tokenizer of {name} has no padding token.")
        # A padding id the model doesn't share would shift RoBERTa's position ids.
        if getattr(config, "pad_token_id", None) not in (None, tokenizer.pad_token_id):
            raise FinetuneError(
                f"{name}: the tokenizer pads with {tokenizer.pad_token_id}, its config.json says "
                f"{config.pad_token_id}; RoBERTa's positions depend on it. Fix config.json."
            )
        return cls(name, config, tokenizer)

    @cached_property
    def positions(self) -> int:
        """Longest input in tokens: the position table less the rows that its numbering skips.

        RoBERTa, CamemBERT, MPNet and others count from the padding id on.
        """
        rows = getattr(self.config, "max_position_embeddings", None) or 512
        with torch.device("meta"):
            model = AutoModel.from_config(self.config)
        skipped = [
            module.padding_idx + 1
            for name, module in model.named_modules()
            if name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ]
        return min(rows - max(skipped, default=0), self.tokenizer.model_max_length)

    @cached_property
    def word_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer for text that comes as words: RoBERTa's then sets a space before each."""
        tokenizer = AutoTokenizer.from_pretrained(self.name, add_prefix_space=True)
        # The generic fast class takes the flag and doesn't use it.
        pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
        if isinstance(pre_tokenizer, ByteLevel):
            pre_tokenizer.add_prefix_space = True
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
        return tokenizer

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Identity of the tokenizer, for the cache of token rows."""
        backend = self.tokenizer.backend_tokenizer.to_str()
        return hashlib.sha256(f"{backend}{self.tokenizer.model_input_names}".encode()).hexdigest()


def _load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer of the tokenizers library; one line that says what is missing otherwise."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (ImportError, ValueError) as error:
        if find_spec("sentencepiece") is None and re.search("sentencepiece|tiktoken", str(error)):
            raise FinetuneError(
                f"--model_name_or_path {name}: found a SentencePiece model but no tokenizer.json; "
                f"reading it takes a package: pip install '{SENTENCEPIECE}'."
            ) from error
        raise
    if not tokenizer.is_fast:
        raise FinetuneError(
            f"--model_name_or_path {name}: found {type(tokenizer).__name__}, which is written in "
            "Python and doesn't tell which token belongs to which word; expected a tokenizer.json, "
            "as the tokenizers library saves it, in the model's folder."
        )
    return tokenizer


def _require_encoder(name: str, config: PretrainedConfig) -> None:
    """An encoder, or a decoder that classifies by its last token; not both in one."""
    is_known = config.model_type in {
        *MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }
    if not is_known or getattr(config, "is_encoder_decoder", False):
        raise FinetuneError(
            f"--model_name_or_path {name}: found model_type {config.model_type!r}, expected an "
            "encoder such as bert, roberta, modernbert, deberta-v2, or a decoder that classifies, "
            "such as qwen3."
        )


@dataclass(frozen=True)
class EncodedTask:
    """A task's rows as the Trainer takes them."""

    data: TaskData
    train: Rows
    dev: dict[str, Rows]
    test: dict[str, Rows]


def encode_task(
    data: TaskData, backbone: Backbone, max_seq_length: int, cache: Path | None = None
) -> EncodedTask:
    """Tokenize every split to at most `max_seq_length` tokens, never more than the model has.

    With a folder `cache`, rows that were tokenized once are read from there.
    """
    length = max_seq_length
    if length > backbone.positions:
        logger.warning(
            "max_seq_length %d: %s takes at most %d tokens; using these",
            length,
            backbone.name,
            backbone.positions,
        )
        length = backbone.positions

    def rows(split: Split, part: str) -> Rows:
        if cache is None:
            return _encode(split, data.task, backbone, length, f"{data.name}, {part}")
        key = f"{_identity(split)} {data.task.kind} {length} {backbone.tokenizer_sha256}"
        file = cache / f"{data.name}-{part}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        if file.is_file():
            try:
                return Rows.read(file)
            except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
                logger.warning("%s can't be read (%s); tokenizing again", file, error)
        encoded = _encode(split, data.task, backbone, length, f"{data.name}, {part}")
        encoded.save(file)
        return encoded

    return EncodedTask(
        data,
        rows(data.train, "train"),
        {suffix: rows(split, f"dev{suffix}") for suffix, split in data.dev.items()},
        {suffix: rows(split, f"test{suffix}") for suffix, split in data.test.items()},
    )


def _identity(split: Split) -> str:
    digest = hashlib.sha256()
    for texts in split.texts:
        digest.update("\0".join((*texts, "")).encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    digest.update(repr(split.targets).encode())
    return digest.hexdigest()


def _encode(split: Split, task: Task, backbone: Backbone, length: int, name: str) -> Rows:
    if task.kind == "tokens":
        return _encode_words(split, backbone, length, name)
    texts, targets, choices = split.texts, split.targets, 1
    if task.kind == "choice":
        # The stock collator wants labels, of test rows, too; nobody reads those.
        targets = targets or [0] * len(texts)
        # Context with beginning and ending, as many pairs as there are endings.
        choices = len(task.inputs) - 2
        texts = [(row[0], f"{row[1]} {end}") for row in split.texts for end in row[2:]]
    columns = [list(column) for column in zip(*texts, strict=True)]
    encoded = backbone.tokenizer(
        *columns, truncation=True, max_length=length, return_attention_mask=False
    )
    return Rows.pack(dict(encoded), targets, choices)  # type: ignore[arg-type]


def _encode_words(split: Split, backbone: Backbone, length: int, name: str) -> Rows:
    """A word's tag stands at its first token, as in `run_ner.py`; the other tokens have none."""
    encoded = backbone.word_tokenizer(
        [list(words) for words in split.texts],
        is_split_into_words=True,
        truncation=True,
        max_length=length,
        return_attention_mask=False,
    )
    labels, lost = [], 0
    for index, tags in enumerate(split.targets or ()):
        row, seen = [], -1
        for word in encoded.word_ids(index):
            is_first = word is not None and word != seen
            row.append(tags[word] if is_first else IGNORED)  # type: ignore[index]
            seen = seen if word is None else word
        labels.append(row)
        lost += len(tags) - sum(tag != IGNORED for tag in row)  # type: ignore[arg-type]
    if lost:
        logger.warning(
            "%s: %d words lie beyond %d tokens or have none; they are not scored",
            name,
            lost,
            length,
        )
    return Rows.pack(dict(encoded) | {"labels": labels}, None)
