from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from pipeline.config import Tokenizer as Settings
from pipeline.errors import PipelineError
from pipeline.store import work
from pipeline.tokens import tokenizer, train
from pipeline.tokens.adopt import adopted, robertas_ids

TEXTS = ["The mask is learned, the weights are not.", "Zwölf Boxkämpfer jagen Viktor."] * 50


def _gpt2() -> Tokenizer:
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(TEXTS, trainer)
    model.add_special_tokens(["<|endoftext|>"])
    return model


def _bert() -> Tokenizer:
    model = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    model.normalizer = normalizers.BertNormalizer()
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    model.train_from_iterator(TEXTS, trainer)
    return model


@pytest.mark.parametrize(("make", "own"), [(_gpt2, 1), (_bert, 5)])
def test_another_tokenizer_splits_as_before_with_robertas_ids(
    tmp_path: Path, make, own: int
) -> None:
    other = make()
    other.save(str(tmp_path / "tokenizer.json"))
    ours = adopted(str(tmp_path))
    assert ours.get_vocab_size() == other.get_vocab_size() - own + 5
    assert all(ours.token_to_id(token) == i for token, i in robertas_ids(ours).items())
    for text in [*TEXTS[:2], "unseen text, Ω"]:
        pieces = other.encode(text, add_special_tokens=False).tokens
        expected = ["<unk>" if p == "[UNK]" else p for p in pieces]
        assert ours.encode(text, add_special_tokens=False).tokens == expected
    (tmp_path / "ours").mkdir()
    work.write_json(tmp_path / "ours/tokenizer_config.json", tokenizer.settings(ours, 64))
    ours.save(str(tmp_path / "ours/tokenizer.json"))
    loaded = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert loaded(TEXTS[0])["input_ids"] == ours.encode(TEXTS[0]).ids
    assert loaded(TEXTS[0])["input_ids"][0] == 0


def test_robertas_own_stays_byte_for_byte(tmp_path: Path) -> None:
    model = train.train_bpe(lambda: iter(TEXTS), Settings(vocab_size=400))
    model.save(str(tmp_path / "tokenizer.json"))
    assert adopted(str(tmp_path)).to_str() == model.to_str()


def test_gpt2_as_it_was_first_published(tmp_path: Path) -> None:
    other = _gpt2()
    other.model.save(str(tmp_path))
    tokens = adopted(str(tmp_path)).encode(TEXTS[1], add_special_tokens=False).tokens
    assert tokens == other.encode(TEXTS[1]).tokens


def test_what_is_no_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"neither tokenizer\.json nor"):
        adopted(str(tmp_path))
