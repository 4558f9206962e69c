"""Ids word by word against those of the library, which knows nothing of words."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from pipeline.config import Tokenizer as Settings
from pipeline.tokens import words
from pipeline.tokens.train import train_bpe, train_wordpiece
from pipeline.tokens.words import Words

TEXTS = [
    "It's the end, isn't it? \"Yes.\" No... (well) 3.14 cafés—ÉTÉ",
    "they'll say: we'd go!",
] * 3
BPE = train_bpe(lambda: iter(TEXTS), Settings(vocab_size=350))
WORDPIECE = train_wordpiece(lambda: iter(TEXTS), Settings(vocab_size=300, kind="wordpiece"))
LOWER = train_wordpiece(
    lambda: iter(TEXTS), Settings(vocab_size=300, kind="wordpiece", lowercase=True)
)

_awkward = st.text(st.sampled_from("aZé'.,)\"”1 \n\t\r\x0b\x1c\x85\xa0\u2003\u200b\u3000\u0301中Σ"))
_from_words = st.lists(st.sampled_from(" ".join(TEXTS).split(" "))).map(" ".join)


def _by_the_library(model: Tokenizer, texts: list[str]) -> list[list[int]]:
    model.encode_special_tokens = True
    return [e.ids for e in model.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("model", [BPE, WORDPIECE, LOWER], ids=["bpe", "wordpiece", "lowercase"])
@given(texts=st.lists(st.one_of(st.text(), _awkward, _from_words), max_size=5))
@example(texts=["", " ", "\n\n x", "a<mask> b</s>", " <s> don't.", "end.\n"])
def test_ids_are_the_librarys(model: Tokenizer, texts: list[str]) -> None:
    by_words = Words(model, "uint16")
    for _ in range(2):  # the second time from memory
        assert [ids.tolist() for ids in by_words.encode(texts)] == _by_the_library(model, texts)


@pytest.mark.parametrize("model", [BPE, WORDPIECE, LOWER], ids=["bpe", "wordpiece", "lowercase"])
def test_no_text_has_special_tokens(model: Tokenizer) -> None:
    (ids,) = Words(model, "uint16").encode(["the end.</s> <s>well <mask> <pad>"])
    special = {model.token_to_id(token) for token in ("<s>", "</s>", "<pad>", "<mask>")}
    assert not special & set(ids.tolist())


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_REMEMBERED_CHARACTERS", 100)
    by_words = Words(BPE, "uint16")
    for number in range(50):
        texts = [f"the {number} of {number * 7919} and {number**9}"]
        assert [ids.tolist() for ids in by_words.encode(texts)] == _by_the_library(BPE, texts)
        assert len(by_words._ids) < 60


def test_workers_may_be_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_REMEMBERED_CHARACTERS", 50)  # each call begins a new table
    by_words = Words(BPE, "uint16")
    texts = [[f"the {n} of {n * 7919}, say {n % 7}" for n in range(i, i + 5)] for i in range(200)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(by_words.encode, texts))
    finally:
        sys.setswitchinterval(interval)
    for some, ids in zip(texts, found, strict=True):
        assert [of_text.tolist() for of_text in ids] == _by_the_library(BPE, some)


def test_other_ways_of_splitting_are_left_to_the_library() -> None:
    prefixed = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2, "a b": 3}, "<unk>"))
    assert [i.tolist() for i in Words(prefixed, "uint16").encode(["a b"])] == [[3]]
    prefixed = Tokenizer.from_str(BPE.to_str())
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    stripped = Tokenizer.from_str(BPE.to_str())
    stripped.normalizer = normalizers.Replace(" the ", "")
    for model in (prefixed, stripped):
        found = [ids.tolist() for ids in Words(model, "uint16").encode(TEXTS)]
        assert found == _by_the_library(model, TEXTS)
