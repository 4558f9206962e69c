from pathlib import Path

import pytest
from transformers import AutoTokenizer, RobertaTokenizer

from pipeline import tokenizer, work
from pipeline.errors import PipelineError

TEXTS = ["The mask is learned, the weights are not.", "Zwölf Boxkämpfer jagen Viktor 🦊."] * 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tokenizer.train_on(iter(TEXTS), 400)
    work.write_json(tmp_path / "tokenizer_config.json", tokenizer.settings(64))
    work.write_atomic(tmp_path / "tokenizer.json", model.to_str(pretty=True).encode())
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
        own = tokenizer.load(folder / "tokenizer.json").encode(text, add_special_tokens=False)
        assert own.ids == plain


def test_ids_that_are_not_robertas_are_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<pad>", "<other>"))
    with pytest.raises(PipelineError, match="special tokens"):
        tokenizer.load(path)
