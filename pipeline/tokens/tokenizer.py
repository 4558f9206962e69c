"""The tokenizer, trained or taken: RoBERTa's special tokens at RoBERTa's ids (`<mask>` last).

Training happens in a fresh process, on a seeded sample of the training split: the same bytes each
time. A tokenizer from elsewhere is renumbered where its special tokens stand at other ids
(`pipeline.adopt`). The folder loads with `AutoTokenizer.from_pretrained`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pipeline.config import Config
from pipeline.config import Tokenizer as TokenizerConfig
from pipeline.errors import PipelineError
from pipeline.split import document_hash, split_of
from pipeline.store import work
from pipeline.store.pieces import kept_documents, piece_receipt
from pipeline.tokens import adopt

Texts = Callable[[], Iterator[str]]  # gives the same texts each time
FILES = ("tokenizer.json", "tokenizer_config.json")
_ALPHABET = 1000  # characters that WordPiece knows; words with others become <unk>


def provide(folder: Path, config: Config, pieces: list[str]) -> Tokenizer:
    """The tokenizer of a data folder: the one that is there, else taken or trained."""
    path = folder / FILES[0]
    if not all((folder / name).exists() for name in FILES):
        if config.tokenizer.path:
            _write(adopt.adopted(config.tokenizer.path), folder, config.seq_len)
        else:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh_process:
                fresh_process.submit(train, folder, config, pieces).result()
    tokenizer = load(path)
    size, most = tokenizer.get_vocab_size(), np.iinfo(config.dtype).max + 1
    if size > most:
        raise PipelineError(
            f"tokenizer.path: {size:,} tokens don't fit {config.dtype}, which was chosen for "
            f"tokenizer.vocab_size {config.tokenizer.vocab_size:,}; set that to {size}"
        )
    for seq_len in config.packing.more_seq_lens:
        _write(tokenizer, folder / f"seq-{seq_len}", seq_len)
    return tokenizer


def load(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json; PipelineError when its ids are not RoBERTa's."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise PipelineError(f"{path}: not a tokenizer ({error})") from error
    expected = adopt.robertas_ids(tokenizer)
    found = {token: tokenizer.token_to_id(token) for token in expected}
    if found != expected:
        raise PipelineError(f"{path}: special tokens at {found}, expected RoBERTa's {expected}")
    return tokenizer


def train(folder: Path, config: Config, pieces: list[str]) -> None:
    """Train on a sample of the training documents and write both files into `folder`."""
    train_on = train_wordpiece if config.tokenizer.kind == "wordpiece" else train_bpe
    sample = partial(_sample, folder, config, pieces)
    _write(train_on(sample, config.tokenizer), folder, config.seq_len)


def train_bpe(texts: Texts, settings: TokenizerConfig) -> Tokenizer:
    """A tokenizer like RoBERTa's, learned from `texts()`: byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size - 1,  # <mask> is added behind the others
        special_tokens=list(adopt.SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return adopt.finished(tokenizer)


def train_wordpiece(texts: Texts, settings: TokenizerConfig) -> Tokenizer:
    """A tokenizer like BERT's with RoBERTa's special tokens, learned from `texts()`: WordPiece."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=settings.lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    characters: Counter[str] = Counter()
    for text in texts():
        characters.update(tokenizer.normalizer.normalize_str(text))
    most = sorted(characters, key=lambda c: (-characters[c], c))[:_ALPHABET]
    alphabet = sorted(c for c in most if not c.isspace())
    # The trainer numbers `##x` as its hash table comes, and breaks ties by number: the same text
    # gives another vocabulary each time. Named beforehand they have the same numbers.
    inner = [f"##{character}" for character in alphabet]
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocab_size - 1,
        special_tokens=[*adopt.SPECIAL, *inner],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []  # they are no special tokens in the end
    return adopt.finished(Tokenizer.from_str(json.dumps(content)))


def _sample(folder: Path, config: Config, pieces: list[str]) -> Iterator[str]:
    """Training documents of about `sample_bytes` in all, chosen by a seeded hash of their ids."""
    available = sum(piece_receipt(folder, piece)["text_bytes"] for piece in pieces)
    wanted = config.tokenizer.sample_bytes / max(available, 1)
    train_share = 1 - config.split.valid - config.split.tasks
    for piece in pieces:
        for document in kept_documents(folder, piece):
            digest = document_hash(document.id)
            if split_of(digest, config.split) == "train":
                lot = document_hash(f"{config.tokenizer.seed}:{document.id}")
                if int.from_bytes(lot[:8], "big") / 2**64 < wanted / train_share:
                    yield document.text


def settings(tokenizer: Tokenizer, seq_len: int) -> dict[str, Any]:
    """tokenizer_config.json as transformers writes it: for RoBERTa, or for any tokenizer."""
    own: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        prefix = tokenizer.pre_tokenizer.add_prefix_space
        own = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": prefix}
        own |= {"trim_offsets": True, "errors": "replace"}
    return {
        **own,
        "model_max_length": seq_len,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }


def _write(tokenizer: Tokenizer, folder: Path, seq_len: int) -> None:
    work.write_json(folder / FILES[1], settings(tokenizer, seq_len))
    work.write_atomic(folder / FILES[0], tokenizer.to_str(pretty=True).encode())
