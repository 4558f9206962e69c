"""Continuing published encoders: what is taken from them, exactly, and what is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertModel,
    RobertaConfig,
    pipeline,
)

from benchmarks.tiny_run import write_shard
from pretrain.auto import LateMaskForMaskedLM
from pretrain.config import PretrainConfig
from pretrain.config_parser import parse_args
from pretrain.data import ShardFolder
from pretrain.errors import PretrainError
from pretrain.export import export
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.fill_mask import fill_mask
from pretrain.initialise import initialise
from pretrain.main import resolve
from pretrain.manifest import TOKENIZER_FILES
from pretrain.model import LateMaskModel
from pretrain.source import Source, settings_of
from pretrain.vocabulary import PARTS
from tests.pretrain.conftest import write_checkpoint
from tests.published_models import NAMES, write_published
from tests.published_tokenizers import TEXTS

SEQ_LEN = 32


def write_data(folder: Path, source: Path) -> Path:
    """A data set of version 2 with the tokenizer in `source`, without the project's own writer."""
    folder.mkdir()
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copy(source / name, folder / name)
    if json.loads((source / "config.json").read_text())["model_type"] == "bert":
        settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = {part: getattr(tokenizer, f"{part}_token_id") for part in PARTS}
    stream: list[int] = []
    for text in TEXTS * 4:
        stream += [*tokenizer(text, add_special_tokens=False)["input_ids"], ids["sep"]]
    count = len(stream) // (SEQ_LEN - 2)
    rows = np.full((count, SEQ_LEN), ids["cls"], dtype=np.uint16)
    rows[:, 1:-1] = np.array(stream[: count * (SEQ_LEN - 2)]).reshape(count, -1)
    rows[:, -1] = ids["sep"]
    splits = {
        split: {
            "shards": [write_shard(folder / f"{split}-00000-of-00001.tar", rows, 64)],
            "sequences": count,
            "tokens": rows.size,
        }
        for split in ("train", "valid")
    }
    raw = (folder / "tokenizer.json").read_bytes()
    manifest = {
        "format": "latemask-shards", "version": 2, "seq_len": SEQ_LEN, "dtype": "uint16",
        "vocab_size": len(tokenizer), "special_tokens": ids,
        "tokenizer_sha256": hashlib.sha256(raw).hexdigest(), "splits": splits,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(params=NAMES)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A source, and a data set made with its tokenizer."""
    write_published(tmp_path / "source", request.param)
    return tmp_path / "source", write_data(tmp_path / "data", tmp_path / "source")


@pytest.fixture
def bert(tmp_path: Path) -> tuple[Path, Path]:
    write_published(tmp_path / "source", "bert")
    return tmp_path / "source", write_data(tmp_path / "data", tmp_path / "source")


def config_for(source: Path, data: Path, *overrides: str) -> PretrainConfig:
    common = ("--data.path", str(data), "--run.init_from", str(source))
    output = ("--run.output_dir", str(data.parent / "run"), "--budget.steps", "2")
    return parse_args([*common, *output, *overrides])


def resolved(source: Path, data: Path, *overrides: str) -> PretrainConfig:
    return resolve(config_for(source, data, *overrides), ShardFolder(data))


def exported_at_step_0(source: Path, data: Path, *overrides: str) -> Path:
    config = resolved(source, data, *overrides)
    model = LateMaskModel(config.model, config.masking)
    initialise(model, seed=3)
    Source(str(source)).start(model)
    run = RunFolder(config.run.output_dir)
    write_checkpoint(run, 1, dict(model.named_parameters()))
    config.save(run.path / "config.yaml")
    export(run.path, run.path / "hf")
    return run.path / "hf"


def test_an_export_at_step_0_is_the_encoder_of_the_source(published: tuple[Path, Path]) -> None:
    source, data = published
    hf = exported_at_step_0(source, data, "--masking.insert_layer", "0.75")
    expected = AutoModelForMaskedLM.from_pretrained(source).base_model.state_dict()
    found = load_file(hf / "model.safetensors")
    assert found.keys() == {name for name in expected if not name.startswith("pooler.")}
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (hf, source))
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours(TEXTS[:3]).data == theirs(TEXTS[:3]).data
    stock = AutoModel.from_pretrained(hf)
    assert stock.config.pad_token_id == theirs.pad_token_id
    assert stock.config.vocab_size == len(expected[next(iter(expected))])


def test_with_ordinary_masking_the_head_is_the_sources_too(published: tuple[Path, Path]) -> None:
    source, data = published
    hf = exported_at_step_0(source, data, "--masking.insert_layer", "0")
    stock, expected = (AutoModelForMaskedLM.from_pretrained(f).eval() for f in (hf, source))
    assert stock.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in stock.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    tokenizer = AutoTokenizer.from_pretrained(hf)
    text = f"the {tokenizer.mask_token} is learned"
    wanted = pipeline("fill-mask", model=expected, tokenizer=tokenizer, top_k=3)(text)
    for folder in (hf, source):
        model = LateMaskForMaskedLM.from_pretrained(folder)
        (found,) = fill_mask(model, AutoTokenizer.from_pretrained(folder), text, top_k=3)
        for a, b in zip(found, wanted, strict=True):
            assert a["token"].strip() == b["token_str"].strip()
            assert a["probability"] == pytest.approx(b["score"], abs=2e-4)


def test_all_of_the_shape_comes_from_the_source(published: tuple[Path, Path]) -> None:
    source, data = published
    config = resolved(source, data, "--masking.insert_layer", "0.75", "--masking.schedule",
                      "[{start: 0.5, insert_layer: 0.3}]")  # fmt: skip
    stock = json.loads((source / "config.json").read_text())
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                "vocab_size", "max_position_embeddings"):  # fmt: skip
        assert getattr(config.model, key) == stock[key], key
    tokenizer = AutoTokenizer.from_pretrained(source)
    for part in ("cls", "sep", "pad", "mask"):
        key = f"{part}_token_id"
        assert getattr(config.model, key) == getattr(tokenizer, key), key
    assert config.masking.insert_layer == 3  # of 4
    assert [stage.insert_layer for stage in config.masking.schedule] == [1]
    # Resolving again, as a restart does by the run's own config, changes nothing.
    again = resolve(config_for(source, data, "--masking.insert_layer", "0.75"), ShardFolder(data),
                    begun=config.model)  # fmt: skip
    assert again.model == config.model


@pytest.mark.parametrize("name", ["xlm-roberta", "camembert"])
def test_unigram_tokens_begin_words_where_transformers_says_so(name: str, tmp_path: Path) -> None:
    write_published(tmp_path / "source", name)
    starts = ShardFolder(write_data(tmp_path / "data", tmp_path / "source")).word_starts
    encoded = AutoTokenizer.from_pretrained(tmp_path / "source")(
        "the masking weights, the Viktors.", add_special_tokens=False
    )
    words = encoded.word_ids()
    expected = [index == 0 or words[index] != words[index - 1] for index in range(len(words))]
    assert starts[encoded["input_ids"]].tolist() == expected
    assert 2 < sum(expected) < len(expected)


def test_dropout_is_the_sources_unless_it_is_set(bert: tuple[Path, Path]) -> None:
    source, data = bert
    file = source / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"hidden_dropout_prob": 0.2}))
    assert resolved(source, data).model.dropout == 0.2
    assert resolved(source, data, "--model.dropout", "0").model.dropout == 0.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("--model.num_hidden_layers", "6"), "model.num_hidden_layers is 6, .* has 4; leave"),
        (("--model.hidden_size", "48"), "model.hidden_size is 48, .* has 32"),
        (("--model.architecture", "modernbert"), "architecture is modernbert, .* has bert"),
        (("--model.max_position_embeddings", "40"), "embeddings is 40, .* has 64"),
        (("--model.vocab_size", "300"), "model.vocab_size is 300, .* has 2"),
    ],
)
def test_a_setting_that_does_not_fit_the_weights_is_one_line(
    bert: tuple[Path, Path], overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(PretrainError, match=f"^run.init_from: .*{message}") as error:
        resolved(*bert, *overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("insert_layer", "message"), [("5", "insert_layer is 5"), ("4", "insert_layer = 4 is the last")]
)
def test_layers_are_checked_against_the_sources(
    bert: tuple[Path, Path], insert_layer: str, message: str
) -> None:
    with pytest.raises(PretrainError, match=message):
        resolved(*bert, "--masking.insert_layer", insert_layer)


def test_a_value_that_computes_another_thing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_published(tmp_path, "modernbert")
    theirs = Source(str(tmp_path)).config
    ours = type(theirs)(architecture="modernbert", local_attention=32, max_position_embeddings=40)
    changes = settings_of(ours, theirs, "x")
    assert "x has local_attention 16, this config 32" in caplog.text
    assert not {"local_attention", "max_position_embeddings"} & changes.keys()


def test_the_tokenizer_of_the_data_must_be_the_sources(
    bert: tuple[Path, Path], shard_folder: Path
) -> None:
    source, data = bert
    with pytest.raises(
        PretrainError,
        match=r"the tokenizer of .*source has '\[PAD\]' at id 0, that of the data in .* has it "
        r"nowhere; .*tokenizer\.path: .*source",
    ):
        resolved(source, shard_folder)
    file = source / "tokenizer.json"
    content = json.loads(file.read_text())
    vocab = content["model"]["vocab"]
    first, second = (token for token, index in vocab.items() if index in (150, 151))
    vocab[first], vocab[second] = vocab[second], vocab[first]
    file.write_text(json.dumps(content))
    with pytest.raises(PretrainError, match=r"at id 150, .* has it at id 151"):
        resolved(source, data)


def test_ids_beyond_the_sources_rows_are_refused(bert: tuple[Path, Path]) -> None:
    source, data = bert
    file = data / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"vocab_size": 999}))
    with pytest.raises(PretrainError, match=r"has 999 tokens; make the data with the source's"):
        resolved(source, data)


def test_an_encoder_without_a_head_gets_a_drawn_one(
    bert: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    source, data = bert
    stock = BertModel.from_pretrained(source)
    for file in source.glob("*.safetensors"):
        file.unlink()
    stock.save_pretrained(source)
    config = resolved(source, data)
    model = LateMaskModel(config.model, config.masking)
    initialise(model, seed=3)
    drawn = model.head.dense.weight.clone()
    Source(str(source)).start(model)
    assert f"{source} has no MLM head; it starts from drawn weights" in caplog.text
    assert torch.equal(model.head.dense.weight, drawn)
    expected = stock.embeddings.word_embeddings.weight
    assert torch.equal(model.word_embeddings.weight[: len(expected)], expected)
    assert torch.equal(model.mask_embedding, expected[103])


@pytest.mark.parametrize("form", ["shards", "pickle", "gamma"])
def test_weights_come_in_every_form(bert: tuple[Path, Path], form: str) -> None:
    source, data = bert
    stock = AutoModelForMaskedLM.from_pretrained(source)
    file = source / "model.safetensors"
    if form == "gamma":
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in load_file(file).items()
        }
        save_file(renamed, file, metadata={"format": "pt"})
    else:
        file.unlink()
    if form == "shards":
        stock.save_pretrained(source, max_shard_size="20KB")
    if form == "pickle":
        torch.save(stock.state_dict(), source / "pytorch_model.bin")
    assert file.exists() == (form == "gamma")
    hf = exported_at_step_0(source, data)
    found = load_file(hf / "model.safetensors")
    expected = stock.state_dict()
    for name, tensor in found.items():
        wanted = expected[name if name in expected else f"bert.{name}"]
        assert torch.equal(tensor, wanted), name


def test_damaged_weights_and_no_source_are_one_line(bert: tuple[Path, Path]) -> None:
    source, data = bert
    config = resolved(source, data)
    model = LateMaskModel(config.model, config.masking)
    file = source / "model.safetensors"
    weights = load_file(file)
    del weights["bert.encoder.layer.2.output.dense.weight"]
    save_file(weights, file)
    with pytest.raises(PretrainError, match=r"run.init_from: .*bert: encoder\.layer\.2\.output"):
        Source(str(source)).start(model)
    with pytest.raises(PretrainError, match=r"run.init_from: .*model_type is 't5'; these can"):
        (source / "config.json").write_text(json.dumps({"model_type": "t5"}))
        Source(str(source))
    (source / "config.json").unlink()
    with pytest.raises(PretrainError, match=r"run.init_from: .*config\.json is missing"):
        Source(str(source))
    for content in ("{", "[]", "{}"):
        (source / "config.json").write_text(content)
        with pytest.raises(PretrainError, match=r"run.init_from: .*config\.json can't be read"):
            Source(str(source))
    for path in ("~/nothing-here", "/nothing/here", "./nothing-here"):
        with pytest.raises(PretrainError, match=r"run\.init_from: there is no folder .*nothing"):
            Source(path)


@pytest.mark.parametrize("size", [0, 20, 5000])
def test_weights_that_are_cut_off_are_one_line(bert: tuple[Path, Path], size: int) -> None:
    source, data = bert
    config = resolved(source, data)
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(PretrainError, match=r"source: model\.safetensors can't be read, it is cut"):
        Source(str(source)).start(LateMaskModel(config.model, config.masking))


def test_weights_of_more_layers_than_the_config_says_are_refused(bert: tuple[Path, Path]) -> None:
    source, data = bert
    content = json.loads((source / "config.json").read_text())
    layers = content["num_hidden_layers"]
    (source / "config.json").write_text(json.dumps(content | {"num_hidden_layers": layers - 1}))
    config = resolved(source, data, "--masking.insert_layer", "1")
    with pytest.raises(PretrainError, match=rf"says {layers - 1} layers, the weights have more"):
        Source(str(source)).start(LateMaskModel(config.model, config.masking))


def test_a_roberta_needs_padding_at_1(bert: tuple[Path, Path]) -> None:
    _, data = bert
    config = parse_args(["--data.path", str(data), "--run.output_dir", "x", "--budget.steps", "2"])
    with pytest.raises(PretrainError, match="roberta, which needs a tokenizer whose padding has"):
        resolve(config, ShardFolder(data))


def test_a_run_continues_an_earlier_one_with_another_recipe(
    exported: Callable[..., tuple[LateMaskModel, Path]],
    shard_folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    model, hf = exported("--masking.late_layers", "1")
    for overrides in ((), ("--masking.late_layers", "1"), ("--masking.mask_embedding", "shared")):
        config = resolved(hf, shard_folder, "--masking.insert_layer", "1", *overrides)
        other = LateMaskModel(config.model, config.masking)
        initialise(other, seed=9)
        Source(str(hf)).start(other)
        expected: dict[str, Any] = dict(model.named_parameters())
        for name, parameter in other.named_parameters():
            assert torch.equal(parameter, expected[name]), name
    assert not caplog.records


def test_a_roberta_with_two_token_types_is_refused(tmp_path: Path) -> None:
    RobertaConfig(type_vocab_size=2, vocab_size=60).save_pretrained(tmp_path)
    with pytest.raises(PretrainError, match="type_vocab_size = 2 can't be read; 1 can"):
        Source(str(tmp_path))
