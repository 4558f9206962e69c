"""The tokenizer, trained or taken: RoBERTa's special tokens at RoBERTa's ids (`<mask>` last).

One from elsewhere is renumbered where its special tokens stand at other ids (`adopt`); training is
`train`'s, in a process of its own. The folder loads with `AutoTokenizer.from_pretrained`.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.store import work
from pipeline.tokens import adopt

FILES = ("tokenizer.json", "tokenizer_config.json")


def take(folder: Path, config: Config) -> None:
    """Put the tokenizer of `tokenizer.path`, if the config has one, into the data folder."""
    if config.tokenizer.path and not _is_there(folder):
        write(adopt.adopted(config.tokenizer.path), folder, config.seq_len)
    if _is_there(folder):
        _check(folder, config)


def provide(folder: Path, config: Config, pieces: list[str]) -> None:
    """Train the tokenizer, unless it is there."""
    if not _is_there(folder):
        command = [sys.executable, "-m", "pipeline.tokens.train"]
        told = pickle.dumps((folder, config, pieces))
        done = subprocess.run(command, input=told, stderr=subprocess.PIPE)
        if done.returncode:
            raise PipelineError(f"no tokenizer was trained: {done.stderr.decode().strip()}")
    _check(folder, config)


def _is_there(folder: Path) -> bool:
    return all((folder / name).exists() for name in FILES)


def _check(folder: Path, config: Config) -> None:
    """PipelineError when its ids don't fit the rows; else a copy of it for each further length."""
    tokenizer = load(folder / FILES[0])
    size, most = tokenizer.get_vocab_size(), np.iinfo(config.dtype).max + 1
    if size > most:
        raise PipelineError(
            f"tokenizer.path: {size:,} tokens don't fit {config.dtype}, which was chosen for "
            f"tokenizer.vocab_size {config.tokenizer.vocab_size:,}; set that to {size}"
        )
    for seq_len in config.packing.more_seq_lens:
        write(tokenizer, folder / f"seq-{seq_len}", seq_len)


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
    tokenizer.no_truncation()  # some on the Hub would cut every document
    tokenizer.no_padding()
    return tokenizer


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


def write(tokenizer: Tokenizer, folder: Path, seq_len: int) -> None:
    """Write both files, `tokenizer.json` last."""
    work.write_json(folder / FILES[1], settings(tokenizer, seq_len))
    work.write_atomic(folder / FILES[0], tokenizer.to_str(pretty=True).encode())
