"""`finetune.predict` on folders that hold a part of a model: found, gone, damaged, cut off."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune.errors import FinetuneError
from finetune.glue import main as glue
from finetune.jobs.load import load_model
from finetune.predict import main
from tests.finetune.conftest import TEXTS, answers_of


@pytest.fixture(scope="module")
def project(tiny_model: Path, tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs of three methods and a mask, made from relative paths in a folder of their own."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(tiny_model, folder / "models" / "base")
    with contextlib.chdir(folder):
        glue(
            [
                *("--model_name_or_path", "models/base", "--data_dir", str(tiny_tasks)),
                *("--output_dir", "runs/one", "--task_name", "library", "--seed", "1"),
                *("--method", "lora", "bitfit", "linear", "mask", "--max_seq_length", "16"),
                *("--max_steps", "2", "--learning_rate", "0.05", "--bf16", "false"),
            ]
        )
    return folder


PARTS = ["lora", "bitfit", "linear", "mask"]


def words_for(folder: Path) -> list[str]:
    return ["--masks" if "mask" in folder.parts else "--model_name_or_path", str(folder)]


@pytest.mark.parametrize("method", PARTS)
def test_a_part_finds_its_backbone_from_any_directory(
    project: Path,
    texts: Path,
    method: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Against the logits of `load_model`, whose backbone is named here."""
    folder = project / "runs" / "one" / "library" / method / "seed-1"
    model = load_model(folder, str(project / "models" / "base"))
    tokenizer = AutoTokenizer.from_pretrained(project / "models" / "base")
    for directory in (tmp_path, project, folder):
        monkeypatch.chdir(directory)
        answers = answers_of(capsys, texts, *words_for(folder))
        for answer, line in zip(answers, TEXTS, strict=True):
            inputs = tokenizer(*line.split("\t"), return_tensors="pt")
            with torch.no_grad():
                expected = model(**inputs).logits[0].softmax(0)
            assert list(answer["probabilities"]) == ["lib-blue", "lib-green", "lib-red"]
            found = torch.tensor(list(answer["probabilities"].values()))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", PARTS)
def test_a_backbone_that_is_gone_is_named_with_the_flag(
    project: Path,
    texts: Path,
    method: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / method
    shutil.copytree(project / "runs" / "one" / "library" / method / "seed-1", folder)
    monkeypatch.chdir(tmp_path)
    flag = "--model_name_or_path" if method == "mask" else "--base_model_name_or_path"
    with pytest.raises(FinetuneError) as error:
        main([str(texts), *words_for(folder)])
    assert str(tmp_path / "models" / "base") in str(error.value)
    assert str(error.value).endswith(f"Say where it is with {flag}.")
    answers = answers_of(capsys, texts, *words_for(folder), flag, project / "models" / "base")
    assert len(answers) == len(TEXTS)


def test_other_adapters_are_no_masks(project: Path, texts: Path) -> None:
    for method, found in (("lora", "a LORA folder"), ("bitfit", "a BitFit or probe folder")):
        folder = project / "runs" / "one" / "library" / method / "seed-1"
        with pytest.raises(FinetuneError, match=f"found {found}, .*--model_name_or_path"):
            main([str(texts), "--masks", str(folder)])
    mask = project / "runs" / "one" / "library" / "mask" / "seed-1"
    with pytest.raises(FinetuneError, match="with --masks, the backbone is --model_name_or_path"):
        main([str(texts), "--masks", str(mask), "--base_model_name_or_path", "x"])


def test_damaged_and_incomplete_parts(project: Path, texts: Path, tmp_path: Path) -> None:
    for method in ("lora", "bitfit"):
        shutil.copytree(project / "runs" / "one" / "library" / method / "seed-1", tmp_path / method)
    base = ["--base_model_name_or_path", str(project / "models" / "base")]
    lora = [str(texts), "--model_name_or_path", str(tmp_path / "lora")]
    (tmp_path / "lora" / "job.json").unlink()
    with pytest.raises(FinetuneError, match=r"lora: no job\.json beside the adapter"):
        main([*lora, *base])
    (tmp_path / "lora" / "adapter_config.json").write_text("{")
    with pytest.raises(FinetuneError, match=r"adapter_config\.json: not JSON"):
        main([*lora, *base])
    file = tmp_path / "bitfit" / "trained.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FinetuneError, match=r"trained\.safetensors: .*cut off or damaged"):
        main([str(texts), "--model_name_or_path", str(tmp_path / "bitfit")])


@pytest.mark.parametrize(
    ("method", "file"),
    [
        ("lora", "adapter_model.safetensors"),
        ("mask", "adapter_model.safetensors"),
        ("mask", "base/model.safetensors"),
        ("lora", "base/model.safetensors"),
        ("whole", "model.safetensors"),
    ],
)
@pytest.mark.parametrize("share", [0, 0.5, None])
def test_weights_that_are_cut_off_are_named(
    project: Path, texts: Path, tmp_path: Path, method: str, file: str, share: float | None
) -> None:
    folder, base = tmp_path / method, tmp_path / method / "base"
    if method == "whole":
        model = AutoModelForSequenceClassification.from_pretrained(project / "models" / "base")
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(project / "models" / "base").save_pretrained(folder)
        words = ["--model_name_or_path", str(folder)]
    else:
        shutil.copytree(project / "runs" / "one" / "library" / method / "seed-1", folder)
        shutil.copytree(project / "models" / "base", base)
        flag = "--model_name_or_path" if method == "mask" else "--base_model_name_or_path"
        words = [*words_for(folder), flag, str(base)]
    if share is None:
        (folder / file).unlink()
    else:
        os.truncate(folder / file, int(share * (folder / file).stat().st_size))
    with pytest.raises(FinetuneError, match="cut off or damaged; copy it again") as error:
        main([str(texts), *words])
    assert str((folder / file).parent) in str(error.value)
