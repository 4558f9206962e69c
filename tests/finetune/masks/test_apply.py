"""Checkpoints in half precision train and mask as if they held the same values in fp32."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaModel,
)

from finetune.glue import main
from finetune.jobs.load import load_model
from finetune.masks.apply import from_checkpoint
from finetune.masks.folder import MaskFolder
from finetune.serving.resident import Resident


@pytest.fixture(scope="module", params=["float16", "bfloat16"])
def bases(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, Path]:
    """The same values in half precision and in fp32."""
    folder = tmp_path_factory.mktemp(request.param)
    model = AutoModelForMaskedLM.from_pretrained(tiny_model)
    for name, dtype in (("half", getattr(torch, request.param)), ("full", torch.float32)):
        shutil.copytree(tiny_model, folder / name)
        model.to(getattr(torch, request.param)).to(dtype).save_pretrained(folder / name)
    stored = load_file(folder / "half" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {getattr(torch, request.param)}
    return folder / "half", folder / "full"


def test_what_is_learned_is_the_same(
    bases: tuple[Path, Path], tiny_tasks: Path, tmp_path: Path
) -> None:
    methods = ["finetune", "mask", "lora", "bitfit"]
    learned: dict[str, list[torch.Tensor]] = {method: [] for method in methods}
    text = AutoTokenizer.from_pretrained(bases[0])("red sky", return_tensors="pt")
    for base in bases:
        main(
            [
                *("--model_name_or_path", str(base), "--data_dir", str(tiny_tasks)),
                *("--output_dir", str(tmp_path / base.name), "--task_name", "library"),
                *("--seed", "1", "--method", *methods, "--max_seq_length", "16"),
                *("--max_steps", "2", "--learning_rate", "0.02", "--bf16", "false"),
            ]
        )
        for method in methods:
            folder = tmp_path / base.name / "library" / method / "seed-1"
            model = load_model(folder, str(base))
            assert {p.dtype for p in model.parameters()} == {torch.float32}
            with torch.no_grad():
                learned[method].append(model(**text).logits)
            if method == "mask":
                resident = Resident(str(base), [MaskFolder.open(folder)])
                served = resident.logits(["library"], text)["library"]
                torch.testing.assert_close(served, learned[method][-1])
    for method, (half, full) in learned.items():
        assert torch.equal(half, full), method


def test_a_decoder_gets_the_tokenizers_padding_id(tiny_model: Path, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=None,
    )
    LlamaModel(config).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(tmp_path)
    model = from_checkpoint(AutoModelForSequenceClassification, str(tmp_path), num_labels=3)
    names = {"return_token_type_ids": False, "return_tensors": "pt"}
    batch = tokenizer(["red", "red sky blue"], padding=True, **names)
    alone = tokenizer(["red"], **names)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits[:1], model(**alone).logits)
