"""Token rows: lengths capped to the model's positions, pads and pairs as the model expects."""

import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    BartConfig,
    DataCollatorWithPadding,
    DebertaV2Config,
    PreTrainedTokenizerFast,
    RobertaConfig,
    ViTConfig,
)

from finetune.errors import FinetuneError
from finetune.tasks import encode, load_task
from finetune.tasks.encode import Backbone, by_length, encode_task


def test_rows_fit_the_positions_and_give_the_same_states_padded_or_not(
    tiny_model: Path, tiny_tasks: Path
) -> None:
    backbone = Backbone.load(str(tiny_model))
    assert backbone.positions == 20  # 22 rows in RoBERTa's table, of which 2 are never used
    encoded = encode_task(load_task("rte", tiny_tasks), backbone, 512)
    rows = encoded.dev[""]
    assert max(len(row["input_ids"]) for row in rows) <= 20
    assert all(row["input_ids"].count(2) == 3 for row in rows)  # <s> a </s></s> b </s>
    model = AutoModel.from_pretrained(tiny_model).eval()
    collate = DataCollatorWithPadding(backbone.tokenizer)
    inputs = [{k: v for k, v in row.items() if k != "labels"} for row in rows[:8]]
    with torch.no_grad():
        padded = model(**collate(inputs)).last_hidden_state[:, 0]
        alone = [model(**collate([one])).last_hidden_state[0, 0] for one in inputs]
    torch.testing.assert_close(padded, torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_by_length_is_a_permutation_longest_first(tiny_model: Path, tiny_tasks: Path) -> None:
    encoded = encode_task(load_task("library", tiny_tasks), Backbone.load(str(tiny_model)), 16)
    order = by_length(encoded.train)
    lengths = [len(encoded.train[index]["input_ids"]) for index in order]
    assert sorted(order) == list(range(96))
    assert lengths == sorted(lengths, reverse=True)


def test_labels_of_an_open_task_come_from_its_training_file(tiny_tasks: Path) -> None:
    assert load_task("library", tiny_tasks).labels == ("lib-blue", "lib-green", "lib-red")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="--model_name_or_path"):
        Backbone.load(str(tmp_path))


def test_a_model_that_is_no_encoder(tmp_path: Path) -> None:
    for config in (BartConfig(), ViTConfig()):
        config.save_pretrained(tmp_path / config.model_type)
        with pytest.raises(
            FinetuneError, match=rf"'{config.model_type}', expected an encoder such"
        ):
            Backbone.load(str(tmp_path / config.model_type))


def tokenizer_in(folder: Path, length: int = 10**6) -> None:
    core = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "a": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", model_max_length=length
    ).save_pretrained(folder)


@pytest.mark.parametrize(
    "model_type",
    [
        *("albert", "bert", "camembert", "data2vec-text", "electra", "mpnet", "roberta"),
        *("roberta-prelayernorm", "xlm-roberta", "esm"),
    ],
)
def test_the_longest_input_is_what_the_model_takes(model_type: str, tmp_path: Path) -> None:
    """One token more is an IndexError, where a table of positions sets the limit."""
    fields = {
        **dict.fromkeys(("hidden_size", "intermediate_size", "embedding_size"), 16),
        **dict.fromkeys(("num_hidden_layers", "num_attention_heads"), 1),
        "vocab_size": 8,
        "max_position_embeddings": 12,
        "pad_token_id": 1,
    }
    config = AutoConfig.for_model(model_type, **fields)
    config.save_pretrained(tmp_path)
    tokenizer_in(tmp_path)
    backbone = Backbone.load(str(tmp_path))
    model = AutoModel.from_config(config).eval()
    ids = torch.full((1, backbone.positions), 2)
    model(input_ids=ids)
    if model_type != "esm":  # rotary
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.cat([ids, ids[:, :1]], dim=1))


def test_a_sentencepiece_model_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DebertaV2Config().save_pretrained(tmp_path)
    (tmp_path / "spm.model").write_bytes(b"\n\x0b")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.setattr(encode, "find_spec", lambda name: None)
    with pytest.raises(FinetuneError, match=r"pip install 'sentencepiece>=0\.2\.1") as error:
        Backbone.load(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_tokenizer_in_python_is_refused(tmp_path: Path) -> None:
    RobertaConfig(pad_token_id=1).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("a 1\nb 2\n")
    (tmp_path / "bpe.codes").write_text("#version: 0.2\na b 1\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertweetTokenizer"}')
    with pytest.raises(FinetuneError, match=r"BertweetTokenizer.*expected a tokenizer\.json"):
        Backbone.load(str(tmp_path))


def test_more_tokens_than_positions_are_cut_and_said(
    tiny_model: Path, tiny_tasks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = load_task("rte", tiny_tasks)
    encoded = encode_task(data, Backbone.load(str(tiny_model)), 512)
    words = [sum(len(text.split()) for text in texts) + 4 for texts in data.train.texts]
    assert encoded.train.lengths.tolist() == [min(20, count) for count in words]
    assert "max_seq_length 512" in caplog.text and "at most 20 tokens" in caplog.text


def test_words_are_tokenized_with_a_space_before_each(tmp_path: Path) -> None:
    """RoBERTa's byte-level pieces: a word alone and the same word in a text are the same pieces."""
    core = Tokenizer(models.BPE({"\u0120a": 0, "a": 1, "\u0120": 2, "<pad>": 3}, [("\u0120", "a")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>").save_pretrained(tmp_path)
    RobertaConfig(pad_token_id=3).save_pretrained(tmp_path)
    words = Backbone.load(str(tmp_path)).word_tokenizer
    assert words(["a", "a"], is_split_into_words=True)["input_ids"] == [0, 0]


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.99])
def test_a_cache_that_was_cut_off_is_made_again(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path, share: float,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    backbone, data = Backbone.load(str(tiny_model)), load_task("rte", tiny_tasks)
    encode_task(data, backbone, 16, tmp_path)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for file, content in files.items():
        file.write_bytes(content[: int(share * len(content))])
    encoded = encode_task(data, backbone, 16, tmp_path)
    assert sum("tokenizing again" in record.message for record in caplog.records) == len(files)
    expected = encode_task(data, backbone, 16)
    assert list(encoded.train) == list(expected.train)
    caplog.clear()
    assert list(encode_task(data, backbone, 16, tmp_path).dev[""]) == list(expected.dev[""])
    assert not caplog.records
