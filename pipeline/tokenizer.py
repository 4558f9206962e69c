"""The tokenizer: byte-level BPE whose special tokens stand at RoBERTa's ids (`<mask>` last).

It is trained in a fresh process, on a seeded sample of the training split: the same bytes each
time. The folder loads as a RobertaTokenizer with `AutoTokenizer.from_pretrained`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from pipeline import work
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.pieces import kept_documents, piece_receipt
from pipeline.split import document_hash, split_of

FILES = ("tokenizer.json", "tokenizer_config.json")
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3; <mask> comes last


def provide(folder: Path, config: Config, pieces: list[str]) -> Tokenizer:
    """The tokenizer of a data folder: the one that is there, else loaded or trained."""
    path = folder / FILES[0]
    if not all((folder / name).exists() for name in FILES):
        if config.tokenizer.path:
            _copy(Path(config.tokenizer.path), folder)
        else:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh_process:
                fresh_process.submit(train, folder, config, pieces).result()
    return load(path)


def load(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json; PipelineError when its ids are not RoBERTa's."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise PipelineError(f"{path}: not a tokenizer ({error})") from error
    expected = {token: i for i, token in enumerate(_SPECIAL)}
    expected["<mask>"] = tokenizer.get_vocab_size() - 1
    found = {token: tokenizer.token_to_id(token) for token in expected}
    if found != expected:
        raise PipelineError(f"{path}: special tokens at {found}, expected RoBERTa's {expected}")
    return tokenizer


def train(folder: Path, config: Config, pieces: list[str]) -> None:
    """Train on a sample of the training documents and write both files into `folder`."""
    tokenizer = train_on(_sample(folder, config, pieces), config.tokenizer.vocab_size)
    work.write_atomic(folder / FILES[1], json.dumps(settings(config.seq_len), indent=1).encode())
    work.write_atomic(folder / FILES[0], tokenizer.to_str(pretty=True).encode())


def train_on(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A RoBERTa-like tokenizer with at most `vocab_size` tokens, learned from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # <mask> is added behind the others
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


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


def settings(seq_len: int) -> dict[str, Any]:
    """tokenizer_config.json as transformers writes it for RoBERTa."""
    return {
        "tokenizer_class": "RobertaTokenizer",
        "model_max_length": seq_len,
        "add_prefix_space": False,
        "trim_offsets": True,
        "errors": "replace",
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }


def _copy(source: Path, folder: Path) -> None:
    for name in FILES:
        if not (source / name).exists():
            raise PipelineError(f"tokenizer.path: {source / name} is missing")
    load(source / FILES[0])
    for name in FILES:
        shutil.copyfile(source / name, folder / f"{name}.tmp")
        (folder / f"{name}.tmp").replace(folder / name)
