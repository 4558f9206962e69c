"""What is learned from a sample: alphabets, and tokens of bounded length in bounded time."""

from __future__ import annotations

import base64
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pipeline.config import Tokenizer as Settings
from pipeline.store.folder import Folder
from pipeline.tokens import tokenizer, train
from pipeline.tokens.words import Words

PROTEINS = ["MKTAYIAKQR", "QISFVKSHFSRQ", "LEERLGLIEVQ"] * 20
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def _loaded(folder: Path, texts: list[str], settings: Settings):  # type: ignore[no-untyped-def]
    made = train.train_alphabet(lambda: iter(texts), settings)
    tokenizer.write(made, Folder(str(folder)), 64)
    return AutoTokenizer.from_pretrained(folder)


def test_characters_are_an_alphabet_with_robertas_special_tokens(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, [*PROTEINS, "a b\nc"], Settings(kind="characters"))
    alphabet = sorted(set("".join(PROTEINS)) | set("a b\nc"))
    tokens = loaded.convert_ids_to_tokens(range(len(loaded)))
    assert tokens[:4] == SPECIAL
    assert tokens[-1] == loaded.mask_token == "<mask>"
    assert sorted(tokens[4:-1]) == alphabet
    assert loaded("MK")["input_ids"] == [0, *map(loaded.convert_tokens_to_ids, "MK"), 2]
    for text in ("MKTAY", "a b\nc", " A  b "):
        ids = loaded(text, add_special_tokens=False)["input_ids"]
        assert len(ids) == len(text)
        assert loaded.decode(ids) == text
    assert loaded("MüK")["input_ids"][2] == loaded.unk_token_id
    masked = loaded("M <mask>K", add_special_tokens=False)["input_ids"]
    assert loaded.convert_ids_to_tokens(masked) == ["M", " ", "<mask>", "K"]


def test_rare_characters_are_left_to_unk(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, ["aaabbc"], Settings(kind="characters", vocab_size=7))
    assert loaded.convert_ids_to_tokens(range(7)) == [*SPECIAL, "a", "b", "<mask>"]


@given(text=st.text("ACGTN", max_size=40), k=st.integers(1, 7))
def test_kmers_do_not_overlap_and_what_is_left_is_letters(text: str, k: int) -> None:
    texts = ["ACGT" * 30, "GATTACA" * 20, "N"]
    model = train.train_alphabet(lambda: iter(texts), Settings(kind="kmers", k=k))
    known = set(model.get_vocab())
    expected: list[str] = []
    for start in range(0, len(text), k):
        part = text[start : start + k]
        expected += [part] if part in known else list(part)
    assert model.encode(text, add_special_tokens=False).tokens == expected


def test_kmers_load_and_keep_lines_apart(tmp_path: Path) -> None:
    texts = ["ACGTAC" * 20 + "\n" + "GGGTTT" * 9]
    loaded = _loaded(tmp_path, texts, Settings(kind="kmers", k=3, lowercase=True))
    assert loaded.tokenize("ACGTACGT\nggg") == ["acg", "tac", "g", "t", "\n", "ggg"]
    ids = loaded("acgtac\nggg", add_special_tokens=False)["input_ids"]
    assert loaded.decode(ids) == "acgtac\nggg"
    words = Words(tokenizer.load(Folder(str(tmp_path))), "uint16")
    assert words.encode(["acgtac\nggg"])[0].tolist() == ids


def test_vocabularies_do_not_depend_on_the_order_of_the_texts() -> None:
    settings = Settings(kind="kmers", k=2, vocab_size=40)
    texts = [*PROTEINS, "ACDC"]
    once = train.train_alphabet(lambda: iter(texts), settings)
    assert train.train_alphabet(lambda: iter(texts[::-1]), settings).to_str() == once.to_str()


def _long_words(size: int) -> dict[str, str]:
    rng = random.Random(0)
    return {
        "one letter": "a" * size,
        "letters": "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=size)),
        "base64": base64.b64encode(rng.randbytes(size * 3 // 4)).decode(),
        "Chinese": "".join(chr(0x4E00 + rng.randrange(3000)) for _ in range(size // 3)),
        "dashes": "-" * size,
        "blanks": " " * size,
    }


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
@pytest.mark.parametrize("word", _long_words(1))
def test_one_endless_word_is_no_endless_training(kind: str, word: str) -> None:
    texts = ["Some words of a plain text.", _long_words(100_000)[word]]
    start = time.process_time()
    trainer = train.train_bpe if kind == "bpe" else train.train_wordpiece
    model = trainer(lambda: iter(texts), Settings(kind=kind, vocab_size=3000))  # type: ignore[arg-type]
    assert time.process_time() - start < 8
    longest = max(len(token) for token in model.get_vocab())
    assert longest <= 4 * 256  # characters, or three or four bytes of them


def test_texts_of_ordinary_words_are_trained_on_as_they_are() -> None:
    texts = ["A plain text.", "x" * 256, "汉字" * 100 + "。" + "汉字" * 100, "- " * 400]
    assert list(train._with_short_words(iter(texts))) == texts


@given(st.text("ab .-汉", max_size=60), st.integers(257, 1200), st.sampled_from("a-汉"))
def test_only_long_words_are_cut_and_no_letter_is_lost(text: str, length: int, letter: str) -> None:
    whole = f"{text} {letter * length} {text}"
    parts = list(train._with_short_words(iter([whole])))
    assert "".join(parts) == whole
    assert len(parts) == -(-length // 256)
