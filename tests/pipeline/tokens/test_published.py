"""Finished tokenizers are copied, not changed: transformers makes the same of copy and source."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from pipeline.config import Config
from pipeline.config import Tokenizer as Settings
from pipeline.errors import PipelineError
from pipeline.report.verify import verify
from pipeline.run import run
from pipeline.shards.shard import read_rows
from pipeline.store.folder import Folder
from pipeline.tokens import tokenizer, train
from pipeline.tokens.published import copied_files
from pipeline.tokens.words import Words
from tests.published_tokenizers import PUBLISHED, TEXTS, write_bert, write_gpt2

PARTS = ("cls", "sep", "pad", "unk", "mask")
SENTENCES = [*TEXTS[:3], "unseen  text, Ω", "a [MASK] and a <mask>.", "</s>"]


def take(source: Path, folder: Path, make_config: Callable[..., Config]) -> Config:
    config = make_config(folder, tokenizer=Settings(path=str(source), vocab_size=600))
    tokenizer.take(Folder(str(folder)), config)
    return config


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_tokenizer_behaves_as_its_source(
    name: str, tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    source = PUBLISHED[name](tmp_path / "source")
    take(source, tmp_path / "data", make_config)
    expected = AutoTokenizer.from_pretrained(source)
    found = AutoTokenizer.from_pretrained(tmp_path / "data")
    assert type(found) is type(expected)
    assert found.model_max_length == 32
    assert found.get_vocab() == expected.get_vocab()
    assert found(SENTENCES).data == expected(SENTENCES).data
    pair = (SENTENCES[0], SENTENCES[1])
    assert found(*pair).data == expected(*pair).data
    assert found.special_tokens_map == expected.special_tokens_map
    special = tokenizer.special_tokens(Folder(str(tmp_path / "data")))
    ids = {part: getattr(expected, f"{part}_token_id") for part in PARTS}
    assert asdict(special) == ids
    known = {"bert": 103, "camembert": len(expected) - 1, "xlm-roberta": len(expected) - 1}
    assert known.get(name, ids["mask"]) == ids["mask"]
    source_file = source / "tokenizer.json"
    assert (tmp_path / "data/tokenizer.json").read_bytes() == source_file.read_bytes()


@pytest.mark.parametrize("name", ["camembert"])
def test_a_run_frames_sequences_by_the_tokenizers_own_ids(
    name: str, tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    source = PUBLISHED[name](tmp_path / "source")
    config = make_config(tmp_path / "data", tokenizer=Settings(path=str(source), vocab_size=600))
    manifest = run(
        config, ["--runner=DirectRunner", "--direct_num_workers=1"], False, lambda *_: None
    )
    loaded = AutoTokenizer.from_pretrained(source)
    ids = {part: getattr(loaded, f"{part}_token_id") for part in PARTS}
    assert manifest["version"] == 2
    assert manifest["special_tokens"] == ids
    rows = np.concatenate(
        [
            read_rows(Folder(str(tmp_path / "data")), shard, manifest)
            for shard in manifest["splits"]["train"]["shards"]
        ]
    )
    assert (rows[:, 0] == ids["cls"]).all()
    assert (rows[:, -1] == ids["sep"]).all()
    inner = rows[:, 1:-1]
    assert not np.isin(inner, [ids["cls"], ids["pad"], ids["mask"]]).any()
    assert (inner == ids["sep"]).sum() > 10  # between documents
    assert verify(Folder(str(tmp_path / "data"))) == 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_text_is_a_special_token(
    name: str, tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    folder = tmp_path / "data"
    take(PUBLISHED[name](tmp_path / "source"), folder, make_config)
    special = tokenizer.special_tokens(Folder(str(folder)))
    known = tokenizer.load(Folder(str(folder)))
    words = Words(tokenizer.load(Folder(str(folder))), "uint16")
    text = "a </s> <s> and [SEP] [CLS] <mask> [MASK]."
    (ids,) = words.encode([text])
    assert not {special.cls, special.sep, special.pad, special.mask} & set(ids.tolist())
    for plain in TEXTS[:3]:
        (found,) = words.encode([plain])
        assert found.tolist() == known.encode(plain, add_special_tokens=False).ids


def test_gpt2_gets_what_it_lacks_behind_its_own(
    tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    source = write_gpt2(tmp_path / "source")
    own = json.loads((source / "vocab.json").read_text())
    take(source, tmp_path / "data", make_config)
    found = AutoTokenizer.from_pretrained(tmp_path / "data")
    vocab = found.get_vocab()
    assert {token: vocab[token] for token in own} == own
    assert len(vocab) == len(own) + 5
    special = asdict(tokenizer.special_tokens(Folder(str(tmp_path / "data"))))
    assert special == {part: getattr(found, f"{part}_token_id") for part in PARTS}
    assert min(special.values()) == len(own)
    text = TEXTS[1]
    plain = found(text, add_special_tokens=False)["input_ids"]
    assert found.decode(plain) == text
    assert found(text)["input_ids"] == [special["cls"], *plain, special["sep"]]


def test_robertas_first_files_keep_their_ids(tmp_path: Path) -> None:
    model = train.train_bpe(lambda: iter(TEXTS), Settings(vocab_size=400))
    vocab = model.get_vocab()
    content = json.loads(model.to_str())
    merges = [" ".join(merge) for merge in content["model"]["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    files = copied_files(str(tmp_path))
    found = Tokenizer.from_str(files["tokenizer.json"].decode())
    assert found.get_vocab() == vocab
    assert found.encode(TEXTS[1]).ids == model.encode(TEXTS[1]).ids


ADDED = ["<med>", "cov19", "  "]


@pytest.mark.parametrize("stated_in", ["added_tokens.json", "tokenizer_config.json"])
@pytest.mark.parametrize("layout", ["gpt2", "bert"])
def test_tokens_that_were_added_outside_of_tokenizer_json_are_kept(
    layout: str, stated_in: str, tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    source = (write_gpt2 if layout == "gpt2" else write_bert)(tmp_path / "source")
    if layout == "bert":
        size = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab_size()
    else:
        size = len(json.loads((source / "vocab.json").read_text()))
        (source / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    ids = {token: size + i for i, token in enumerate(ADDED)}
    if stated_in == "added_tokens.json":
        (source / stated_in).write_text(json.dumps(ids))
    else:
        file = source / stated_in
        settings = json.loads(file.read_text()) if file.exists() else {}
        settings["added_tokens_decoder"] = {
            str(index): {"content": token, "lstrip": False, "rstrip": False, "normalized": False,
                         "single_word": False, "special": False}
            for token, index in ids.items()
        }  # fmt: skip
        file.write_text(json.dumps(settings))
    expected = AutoTokenizer.from_pretrained(source)
    take(source, tmp_path / "data", make_config)
    words = Words(tokenizer.load(Folder(str(tmp_path / "data"))), "uint16")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "data")
    for text in ("the cov19 mask", "a<med>b  c", "<med><med>", "covid cov190"):
        plain = expected(text, add_special_tokens=False)["input_ids"]
        assert set(plain) & set(ids.values()) or text.startswith("covid")
        assert words.encode([text])[0].tolist() == plain
        assert loaded(text, add_special_tokens=False)["input_ids"] == plain


def test_added_tokens_that_cannot_keep_their_ids_are_told(tmp_path: Path) -> None:
    source = write_bert(tmp_path / "source")
    (source / "added_tokens.json").write_text(json.dumps({"<med>": 5000}))
    with pytest.raises(PipelineError, match=r"'<med>' has the id 5000 there, but would get"):
        copied_files(str(source))


def test_a_trained_tokenizer_is_copied_byte_for_byte(tmp_path: Path) -> None:
    model = train.train_bpe(lambda: iter(TEXTS), Settings(vocab_size=400))
    tokenizer.write(model, Folder(str(tmp_path)), 64)
    files = copied_files(str(tmp_path))
    assert files["tokenizer.json"] == (tmp_path / "tokenizer.json").read_bytes()
    stated = json.loads(files["tokenizer_config.json"])
    assert stated == json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_further_lengths_have_the_same_tokenizer(
    tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    source = write_bert(tmp_path / "source")
    config = make_config(tmp_path / "data", tokenizer=Settings(path=str(source), vocab_size=600))
    config.packing = replace(config.packing, more_seq_lens=[64])
    tokenizer.take(Folder(str(tmp_path / "data")), config)
    found = AutoTokenizer.from_pretrained(tmp_path / "data/seq-64")
    assert found.model_max_length == 64
    assert found.get_vocab() == AutoTokenizer.from_pretrained(source).get_vocab()


def test_what_is_no_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"neither tokenizer\.json nor .*save_pretrained"):
        copied_files(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PipelineError, match="is not a tokenizer"):
        copied_files(str(tmp_path))


def test_a_tokenizer_that_does_not_fit_the_ids_width_is_told(
    tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    source = write_bert(tmp_path / "source")
    file = source / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["far"] = 70_000
    file.write_text(json.dumps(content))
    config = make_config(tmp_path / "data", tokenizer=Settings(path=str(source)))
    with pytest.raises(PipelineError, match=r"70,001 tokens don't fit uint16.*set that to 70001"):
        tokenizer.take(Folder(str(tmp_path / "data")), config)


@pytest.mark.parametrize("path", ["{}/none", "./none", "../none", "a/b/c", "~/none"])
def test_a_path_of_no_folder_is_told_as_such(tmp_path: Path, path: str) -> None:
    path = path.format(tmp_path)
    with pytest.raises(PipelineError) as told:
        copied_files(path)
    assert str(told.value) == f"tokenizer.path: {path}: no such folder"


def test_a_file_in_place_of_its_folder_is_told(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    with pytest.raises(PipelineError, match=r"tokenizer\.json: a file; give the folder"):
        copied_files(str(file))
