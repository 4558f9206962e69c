"""What a mask stores as the task's own: the head, and a pooler that no checkpoint has."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertModel,
)

from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from finetune.masks.folder import MaskFolder
from finetune.masks.identity import missing_weights
from finetune.serving.resident import Resident
from tests.finetune.masks.small_encoder import IDS, SIZE, logits, train

POOLER = "bert.pooler.dense"


@pytest.fixture(scope="module")
def without_pooler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert-mlm")
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(**SIZE, initializer_range=0.2)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def with_pooler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZE, initializer_range=0.2)).save_pretrained(folder)
    return folder


def load(folder: Path, seed: int) -> Any:
    """The classifier of a folder; what the folder has no weights for comes from `seed`."""
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()


def test_missing_weights_are_what_loading_reports(without_pooler: Path, with_pooler: Path) -> None:
    head = ["classifier.bias", "classifier.weight"]
    assert missing_weights(load(with_pooler, 0)) == head
    assert missing_weights(load(without_pooler, 0)) == sorted(
        [*head, f"{POOLER}.bias", f"{POOLER}.weight"]
    )
    before = torch.get_rng_state()
    model = load(without_pooler, 0)
    model.name_or_path = "nowhere"
    torch.set_rng_state(before)
    assert missing_weights(model) == []
    missing_weights(load(without_pooler, 0))
    after = torch.get_rng_state()
    load(without_pooler, 0)
    assert torch.get_rng_state().equal(after)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mask_pooler": False},
        {"mask_classifier": False},
        {"train_classifier": True},
        {"target_modules": ["query"]},
        {"granularity": "layer"},
    ],
    ids=str,
)
def test_a_random_pooler_comes_back(
    without_pooler: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = get_peft_model(load(without_pooler, 1), MaskConfig(labels=list("abc"), **settings))
    train(model, steps=2)
    expected = logits(model.eval())
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(load(without_pooler, 2), str(tmp_path)).eval()
    assert logits(again).equal(expected)
    tasks = Resident(str(without_pooler), [MaskFolder.open(tmp_path)])
    (served,) = tasks.logits(list(tasks.tasks), {"input_ids": IDS}).values()
    assert torch.allclose(served, expected, atol=1e-5)


def test_a_random_pooler_of_a_bare_encoder_comes_back(without_pooler: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = get_peft_model(AutoModel.from_pretrained(without_pooler), MaskConfig()).eval()
    model.save_pretrained(tmp_path)
    torch.manual_seed(2)
    again = PeftModel.from_pretrained(AutoModel.from_pretrained(without_pooler), str(tmp_path))
    with torch.no_grad():
        expected = model(input_ids=IDS).pooler_output
        assert again.eval()(input_ids=IDS).pooler_output.equal(expected)


def test_a_pretrained_pooler_stays_with_the_base(
    without_pooler: Path, with_pooler: Path, tmp_path: Path
) -> None:
    model = get_peft_model(load(with_pooler, 1), MaskConfig(labels=list("abc")))
    model.save_pretrained(tmp_path)
    assert model.peft_config["default"].head_modules == ["dropout", "classifier"]
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert not any("pooler" in name and "weight" in name for name in stored)
    with pytest.raises(FinetuneError, match=rf"weights with {POOLER}\.\w+, which .*hasn't got"):
        Resident(str(without_pooler), [MaskFolder.open(tmp_path)])
