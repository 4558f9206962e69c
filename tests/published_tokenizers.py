"""Small tokenizers with the layouts of published ones, as transformers writes them to a folder."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertTokenizer,
    CamembertTokenizer,
    PreTrainedTokenizerFast,
    XLMRobertaTokenizer,
)

TEXTS = [
    "The mask is learned, the weights are not.",
    "Zwölf Boxkämpfer jagen Viktor.",
    "master layers tokens rivers gardens letters masking laying riving",
] * 40


def write_bert(folder: Path) -> Path:
    """WordPiece: [PAD] 0, unused tokens, then [UNK], [CLS], [SEP], [MASK] 100 to 103."""
    unused = [f"[unused{index}]" for index in range(99)]
    special = ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    model = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    model.normalizer = normalizers.BertNormalizer()
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=special, show_progress=False)
    model.train_from_iterator(TEXTS, trainer)
    BertTokenizer(vocab=model.get_vocab()).save_pretrained(folder)
    # As bert-base-uncased has it: no names of special tokens.
    stated = {"do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


def write_modernbert(folder: Path) -> Path:
    """Byte-level BPE: special tokens behind the others, and added ones that are not special."""
    model = Tokenizer(models.BPE())
    model.normalizer = normalizers.NFC()
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(TEXTS, trainer)
    model.add_tokens([AddedToken("  ", normalized=True)])
    model.add_special_tokens(["|||EMAIL|||", "[UNK]", "[CLS]", "[SEP]", "[PAD]"])
    model.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    model.add_special_tokens(["[unused0]"])
    cls, sep = (("[CLS]", model.token_to_id("[CLS]")), ("[SEP]", model.token_to_id("[SEP]")))
    model.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=model, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        unk_token="[UNK]", mask_token="[MASK]", model_input_names=["input_ids", "attention_mask"],
        model_max_length=8192,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _pieces() -> list[tuple[str, float]]:
    model = Tokenizer(models.Unigram())
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, show_progress=False, unk_token="<unk>")
    model.train_from_iterator(TEXTS, trainer)
    vocab = json.loads(model.to_str())["model"]["vocab"]
    return [(piece, score) for piece, score in vocab if piece != "<unk>"]


def write_xlm_roberta(folder: Path) -> Path:
    """Unigram: <s> 0, <pad> 1, </s> 2, <unk> 3, <mask> last."""
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocab = [*special, *_pieces(), ("<mask>", 0.0)]
    XLMRobertaTokenizer(vocab=vocab).save_pretrained(folder)
    return folder


def write_camembert(folder: Path) -> Path:
    """Unigram: <pad> 1, <unk> 4, <s> 5, </s> 6, <mask> last; tokens that nobody uses before."""
    tokens = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>NOTUSED", "<unk>", "<s>", "</s>")
    vocab = [*((token, 0.0) for token in tokens), *_pieces(), ("<mask>", 0.0)]
    CamembertTokenizer(vocab=vocab).save_pretrained(folder)
    return folder


def write_gpt2(folder: Path) -> Path:
    """vocab.json and merges.txt of byte-level BPE, with one special token."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, initial_alphabet=alphabet, show_progress=False,
        special_tokens=["<|endoftext|>"],
    )  # fmt: skip
    model.train_from_iterator(TEXTS, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    model.model.save(str(folder))
    return folder


PUBLISHED = {
    "bert": write_bert,
    "modernbert": write_modernbert,
    "xlm-roberta": write_xlm_roberta,
    "camembert": write_camembert,
}
