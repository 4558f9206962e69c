"""The tokenizer of a data folder: trained, or copied from `tokenizer.path` (`published`).

A trained one has RoBERTa's special tokens at RoBERTa's ids (`<mask>` last); training is `train`'s,
in a process of its own. The folder loads with `AutoTokenizer.from_pretrained`.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.tokens import published
from pipeline.tokens.special import SpecialTokens, find

FILES = (published.TOKENIZER, published.SETTINGS)
_SPECIAL_TOKENS = f"{work.WORK}/special_tokens.json"


def take(folder: Folder, config: Config) -> None:
    """Put the tokenizer of `tokenizer.path`, if the config has one, into the data folder."""
    if config.tokenizer.path and not exists(folder):
        _write_files(published.copied_files(config.tokenizer.path), folder, config.seq_len)
    if exists(folder):
        _check(folder, config)


def train_tokenizer(folder: Folder, config: Config) -> None:
    """Train the tokenizer on the sample, unless it is there."""
    if not exists(folder):
        command = [sys.executable, "-m", "pipeline.tokens.train"]
        told = pickle.dumps((folder, config))
        done = subprocess.run(command, input=told, stderr=subprocess.PIPE)
        if done.returncode:
            raise PipelineError(f"no tokenizer was trained: {done.stderr.decode().strip()}")
    _check(folder, config)


def load(folder: Folder) -> Tokenizer:
    """The tokenizer in a folder's tokenizer.json."""
    content = folder.read(published.TOKENIZER)
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # tokenizers raises nothing narrower
        raise PipelineError(
            f"{folder.path(published.TOKENIZER)}: not a tokenizer ({error})"
        ) from error
    tokenizer.no_truncation()  # some on the Hub would cut every document
    tokenizer.no_padding()
    return tokenizer


def size_of(tokenizer: Tokenizer) -> int:
    """One more than the highest id: ids may be missing below it."""
    return max(tokenizer.get_vocab().values()) + 1


def special_tokens(folder: Folder) -> SpecialTokens:
    """Of the tokenizer in a data folder, as `take` or `train_tokenizer` has found them."""
    return SpecialTokens(**work.load_json(folder, _SPECIAL_TOKENS))


def settings(tokenizer: Tokenizer, seq_len: int) -> dict[str, Any]:
    """tokenizer_config.json of a trained tokenizer: for RoBERTa, or for any tokenizer."""
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


def write(tokenizer: Tokenizer, folder: Folder, seq_len: int) -> None:
    """Write both files of a trained tokenizer."""
    files = {
        published.SETTINGS: json.dumps(settings(tokenizer, seq_len)).encode(),
        published.TOKENIZER: tokenizer.to_str(pretty=True).encode(),
    }
    _write_files(files, folder, seq_len)


def exists(folder: Folder) -> bool:
    """Whether the data folder has a tokenizer."""
    return all(folder.exists(name) for name in FILES)


def _check(folder: Folder, config: Config) -> None:
    """PipelineError when it can't be used; else a copy of it for each further length."""
    tokenizer = load(folder)
    size, most = size_of(tokenizer), np.iinfo(config.dtype).max + 1
    if size > most:
        raise PipelineError(
            f"tokenizer.path: {size:,} tokens don't fit {config.dtype}, which was chosen for "
            f"tokenizer.vocab_size {config.tokenizer.vocab_size:,}; set that to {size}"
        )
    files = {name: folder.read(name) for name in reversed(published.FILES) if folder.exists(name)}
    stated = [
        json.loads(files.get(name, b"{}"))
        for name in (published.SETTINGS, published.SPECIAL_TOKENS_MAP)
    ]
    try:
        found = find(tokenizer, *stated)
    except PipelineError as error:
        raise PipelineError(f"{folder.path(published.TOKENIZER)}: {error}") from None
    work.write_json(folder, _SPECIAL_TOKENS, asdict(found))
    for seq_len in config.packing.more_seq_lens:
        _write_files(files, folder.within(f"seq-{seq_len}"), seq_len)


def _write_files(files: dict[str, bytes], folder: Folder, seq_len: int) -> None:
    """Write all files, `tokenizer.json` last; the settings say how long a sequence may be."""
    for name, content in files.items():
        if name == published.SETTINGS:
            stated = json.loads(content)
            work.write_json(folder, name, stated | {"model_max_length": seq_len})
        else:
            folder.write(name, content)
