"""What the commands take from training where no flag says it, and flags that nothing can mean."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from finetune.errors import FinetuneError
from finetune.glue import main as glue
from finetune.predict import add_model_flags, main
from finetune.serving.answers import Answerer
from finetune.serving.models import load


def loaded(*words: object) -> Answerer:
    parser = argparse.ArgumentParser()
    add_model_flags(parser)
    return load(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs on pairs and on single texts, of 12 and of 15 tokens."""
    folder = tmp_path_factory.mktemp("runs")
    words = ["--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)]
    words += ["--output_dir", str(folder), "--max_steps", "1", "--seed", "1", "--bf16", "false"]
    glue([*words, "--task_name", "rte", "--method", "mask", "finetune", "--max_seq_length", "12"])
    glue([*words, "--task_name", "library", "--method", "mask", "--max_seq_length", "15"])
    return folder


def test_length_and_texts_are_those_of_training(runs: Path, tmp_path: Path) -> None:
    rte, library = runs / "rte/mask/seed-1", runs / "library/mask/seed-1"
    assert loaded("--masks", rte).max_length == 12
    assert loaded("--masks", rte).texts == {"rte": 2}
    both = loaded("--masks", rte, library)
    assert both.max_length == 15
    assert both.texts == {"rte": 2, "library": 1}
    whole = loaded("--model_name_or_path", runs / "rte/finetune/seed-1")
    assert (whole.max_length, whole.texts) == (12, {"rte": 2})
    assert loaded("--masks", rte, "--max_length", 9).max_length == 9
    # A mask says it itself, without its job's file.
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / file).write_bytes((library / file).read_bytes())
    alone = loaded("--masks", tmp_path)
    assert (alone.max_length, alone.texts) == (15, {"library": 1})


def test_a_task_of_ones_own_knows_its_columns(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("one,two,label\n" + "red,sky,a\nblue,sea,b\n" * 4)
    files = ["--train_file", str(tmp_path / "t.csv"), "--validation_file", str(tmp_path / "t.csv")]
    words = ["--model_name_or_path", str(tiny_model), "--output_dir", str(tmp_path / "out")]
    columns = ["--task_name", "mine", "--text_columns", "one", "two"]
    glue([*words, *files, *columns, "--max_steps", "1", "--bf16", "false"])
    whole = loaded("--model_name_or_path", tmp_path / "out/mine/finetune/seed-42")
    assert list(whole.texts.values()) == [2]


def test_where_nothing_is_stored(make_mask: Callable[..., Path]) -> None:
    answerer = loaded("--masks", make_mask("one"))
    assert (answerer.max_length, answerer.texts) == (20, {})  # all that the model has


def test_a_pair_that_is_missing_or_not_wanted_and_cut_texts(
    runs: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["red sky", "red " * 30, "one two three " * 4, "blue"]
    pairs = ["red sky\tblue", "red " * 8 + "\t" + "blue " * 8]
    (tmp_path / "in.txt").write_text("\n".join(texts + pairs) + "\n")
    masks = [str(runs / task / "mask/seed-1") for task in ("rte", "library")]
    with caplog.at_level(logging.WARNING):
        main([str(tmp_path / "in.txt"), "--masks", *masks])
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = tokenizer([line.split("\t") if "\t" in line else line for line in texts + pairs])
    longer = sum(len(row) > 15 for row in rows["input_ids"])
    ours = [record for record in caplog.records if record.name.startswith("finetune.")]
    assert longer == 2 and [record.getMessage() for record in ours] == [
        "rte: found one text, but it was trained on a text and its pair; first for 'red sky'",
        "library: found a text and its pair, but it was trained on one text; first for 'red sky'",
        f"{longer} texts were cut to 15 tokens; --max_length sets more, up to the model's own",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_length", "-5"], "max_length: found -5, expected a whole number from 1"),
        (["--max_length", "4"], "--max_length: found 4, expected more than the 4 tokens"),
        (["--batch_size", "0"], "batch_size: found 0, expected a whole number from 1"),
        (["--batch_size", "-1"], "batch_size: found -1, expected a whole number from 1"),
        (["--device", "foo"], "--device foo: .*Expected cpu, or cuda on a machine with a GPU"),
        (["--device", "cuda:99"], "--device cuda:99: .*Expected cpu, or cuda"),
        (["--device", "meta"], "--device meta: .*Expected cpu, or cuda"),
    ],
)
def test_flags_that_nothing_can_mean(runs: Path, words: list[str], message: str) -> None:
    with pytest.raises(FinetuneError, match=message) as error:
        main(["--masks", str(runs / "rte/mask/seed-1"), *words])
    assert "\n" not in str(error.value)
