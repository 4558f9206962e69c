import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, RobertaTokenizer

from pipeline.config import Tokenizer as Settings
from pipeline.store.folder import Folder
from pipeline.tokens import tokenizer, train

TEXTS = ["The mask is learned, the weights are not.", "Zwölf Boxkämpfer jagen Viktor 🦊."] * 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = train.train_bpe(lambda: iter(TEXTS), Settings(vocab_size=400))
    tokenizer.write(model, Folder(str(tmp_path)), 64)
    return tmp_path


def test_transformers_loads_roberta(folder: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    assert isinstance(loaded, RobertaTokenizer)
    assert (loaded.bos_token_id, loaded.pad_token_id, loaded.eos_token_id) == (0, 1, 2)
    assert loaded.unk_token_id == 3
    assert loaded.mask_token_id == len(loaded) - 1
    assert loaded.model_max_length == 64
    ids = loaded("The mask", "the weights")["input_ids"]
    separators = [i for i, token in enumerate(ids) if token == 2]
    assert ids[0] == 0
    assert len(separators) == 3
    assert separators[1] == separators[0] + 1
    assert separators[2] == len(ids) - 1
    masked = loaded("a <mask>.", add_special_tokens=False)["input_ids"]
    assert masked[1] == loaded.mask_token_id  # the blank before it is part of it, as RoBERTa's
    assert len(masked) == 3
    for text in [*TEXTS[:2], "unseen ☃ text"]:
        plain = loaded(text, add_special_tokens=False)["input_ids"]
        assert loaded.decode(plain) == text
        own = tokenizer.load(Folder(str(folder))).encode(text, add_special_tokens=False)
        assert own.ids == plain


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece_is_berts_splitting_with_robertas_frame(tmp_path: Path, lowercase: bool) -> None:
    settings = Settings(vocab_size=300, kind="wordpiece", lowercase=lowercase)
    model = train.train_wordpiece(lambda: iter(TEXTS), settings)
    tokenizer.write(model, Folder(str(tmp_path)), 64)
    tokenizer.load(Folder(str(tmp_path)))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.mask_token_id == len(loaded) - 1
    assert (loaded.bos_token_id, loaded.pad_token_id, loaded.eos_token_id) == (0, 1, 2)
    ids = loaded("The mask", "the weights")["input_ids"]
    assert ids[0] == 0
    assert [i for i, token in enumerate(ids) if token == 2][1:] == [
        ids.index(2) + 1,
        len(ids) - 1,
    ]
    text = TEXTS[0].lower() if lowercase else TEXTS[0]
    assert loaded.decode(loaded(TEXTS[0], add_special_tokens=False)["input_ids"]) == text


def test_training_twice_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from pipeline.tokens import train;"
        "from pipeline.config import Tokenizer as T;"
        "texts = [f'word{i % 97} other{i % 31} and {i}' for i in range(3000)];"
        "models = train.train_bpe(lambda: iter(texts), T(vocab_size=500)), "
        "train.train_wordpiece(lambda: iter(texts), T(vocab_size=400, kind='wordpiece'));"
        "print(*(hashlib.sha256(m.to_str().encode()).hexdigest() for m in models))"
    )
    runs = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(3)}
    assert len(runs) == 1
