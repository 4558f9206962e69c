"""A tokenizer trained on a seeded sample of the training split: the same bytes each time.

`python -m pipeline.tokens.train` is a process of its own, since the library's trainers give the
same result once in a process only; `pipeline.tokens.tokenizer` starts it, and tells it by a pickle
on stdin what to train on.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from pipeline.config import Config
from pipeline.config import Tokenizer as TokenizerConfig
from pipeline.errors import PipelineError
from pipeline.store.folder import Folder
from pipeline.tokens import sample
from pipeline.tokens.tokenizer import write

Texts = Callable[[], Iterator[str]]  # gives the same texts each time
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3; <mask> comes last
_MASK = AddedToken("<mask>", lstrip=True, normalized=False, special=True)
_ALPHABET = 1000  # characters that WordPiece and k-mers know; words with others become <unk>
# Runs that one kind or the other has for a word. A trainer's time grows with a word's length times
# the merges in it: a million letters without a blank would take hours, and make endless tokens.
_LONGEST_WORD = 256
_LONG_WORD = re.compile(
    r"(?<!\w)\w{N,}|(?<![^\w\s])[^\w\s]{N,}|(?<!\s)\s{N,}".replace("N", str(_LONGEST_WORD + 1))
)


def train(folder: Folder, config: Config) -> None:
    """Train on the sample and write both files into `folder`."""
    texts = partial(sample.read, folder, config)
    write(_TRAINERS[config.tokenizer.kind](texts, config.tokenizer), folder, config.seq_len)


def train_bpe(texts: Texts, settings: TokenizerConfig) -> Tokenizer:
    """A tokenizer like RoBERTa's, learned from `texts()`: byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size - 1,  # <mask> is added behind the others
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_with_short_words(texts()), trainer)
    return _finished(tokenizer)


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
        special_tokens=[*_SPECIAL, *inner],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_with_short_words(texts()), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []  # they are no special tokens in the end
    return _finished(Tokenizer.from_str(json.dumps(content)))


def train_alphabet(texts: Texts, settings: TokenizerConfig) -> Tokenizer:
    """A token for each character, or for each `k` that are no blanks, most frequent first.

    k-mers don't overlap, as the Nucleotide Transformer's (Dalla-Torre et al. 2023): of those that
    do (DNABERT's), a masked one can be read off its neighbours, and a sequence has k times as many.
    What is shorter than `k`, or too rare for the vocabulary, becomes single letters.
    """
    k = settings.k if settings.kind == "kmers" else 1
    lower = normalizers.Lowercase() if settings.lowercase else None
    counts: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    for text in texts():
        text = lower.normalize_str(text) if lower else text
        letters.update(text)
        if k > 1:
            counts.update(re.findall(rf"\S{{{k}}}", text))
    room = settings.vocab_size - len(_SPECIAL) - 1
    alphabet = _most_frequent(letters, room if k == 1 else min(room, _ALPHABET))
    tokens = [*_SPECIAL, *alphabet, *_most_frequent(counts, room - len(alphabet))]
    # Takes the longest token that fits, from left to right: a k-mer, or else a letter.
    model = models.WordPiece(
        vocab={token: index for index, token in enumerate(tokens)},
        unk_token="<unk>",
        continuing_subword_prefix="",
        max_input_chars_per_word=k,
    )
    tokenizer = Tokenizer(model)
    if lower:
        tokenizer.normalizer = lower
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"\S{{1,{k}}}|\s"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return _finished(tokenizer, AddedToken("<mask>", normalized=False, special=True))


def _most_frequent(counts: Counter[str], number: int) -> list[str]:
    """Of equally frequent ones the first by code point: the same in any order of the texts."""
    return sorted(counts, key=lambda token: (-counts[token], token))[:number]


def _with_short_words(texts: Iterator[str]) -> Iterator[str]:
    """The texts, those with a longer word than `_LONGEST_WORD` cut within it, every so often."""
    for text in texts:
        lengths = [len(word) for word in text.split()]
        blanks = len(text) - sum(lengths)
        if max(lengths, default=0) <= _LONGEST_WORD and blanks - len(lengths) < _LONGEST_WORD:
            yield text  # nearly all, and told without the expression
            continue
        start = 0
        for word in _LONG_WORD.finditer(text):
            for stop in range(word.start() + _LONGEST_WORD, word.end(), _LONGEST_WORD):
                yield text[start:stop]
                start = stop
        yield text[start:]


def _finished(tokenizer: Tokenizer, mask: AddedToken = _MASK) -> Tokenizer:
    """Add `<mask>` behind all others, and RoBERTa's way of framing one sequence or two."""
    tokenizer.add_special_tokens([*_SPECIAL, mask])
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


_TRAINERS = {
    "bpe": train_bpe,
    "wordpiece": train_wordpiece,
    "characters": train_alphabet,
    "kmers": train_alphabet,
}

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: end without a traceback
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # its worker waits, and so do all others
    try:
        train(*pickle.load(sys.stdin.buffer))
    except PipelineError as error:
        sys.exit(str(error))
