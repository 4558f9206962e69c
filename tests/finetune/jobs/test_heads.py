"""Whose head a model wears: its classes are matched by name, never by place."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune.jobs.heads import load_with_head, order_of
from finetune.tasks import TASKS
from finetune.tasks.encode import Backbone

ORDER = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]  # roberta-large-mnli's


@pytest.fixture(scope="module")
def mnli_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mnli")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, id2label=dict(enumerate(ORDER)), label2id={v: k for k, v in enumerate(ORDER)}
    )
    torch.nn.init.normal_(model.classifier.out_proj.weight)
    torch.nn.init.normal_(model.classifier.out_proj.bias)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def test_a_head_in_another_order_gives_the_same_probability_to_each_name(mnli_model: Path) -> None:
    task = TASKS["mnli"]
    backbone = Backbone.load(str(mnli_model))
    model, random = load_with_head(backbone, task, task.labels or (), None, True)
    theirs = AutoModelForSequenceClassification.from_pretrained(mnli_model)
    inputs = backbone.tokenizer("red sky", "blue sea", return_tensors="pt")
    with torch.no_grad():
        ours, other = model.eval()(**inputs).logits[0], theirs.eval()(**inputs).logits[0]
    for index, label in model.config.id2label.items():
        assert ours[index] == other[ORDER.index(label.upper())]
    assert random == [] and list(model.config.id2label.values()) == list(task.labels or ())


@pytest.mark.parametrize(("task", "may_keep"), [("rte", True), ("mnli", False), ("pos", True)])
def test_any_other_head_stays_behind(
    mnli_model: Path, task: str, may_keep: bool, caplog: pytest.LogCaptureFixture
) -> None:
    row = TASKS[task]
    model, random = load_with_head(
        Backbone.load(str(mnli_model)), row, row.labels or (), None, may_keep
    )
    assert model.config.num_labels == len(row.labels or ())
    assert random and all(name.startswith("classifier") for name in random)
    theirs = AutoModelForSequenceClassification.from_pretrained(mnli_model)
    encoder = theirs.roberta.state_dict()
    for name, value in model.base_model.state_dict().items():
        assert value.equal(encoder[name])
    assert "has a head for CONTRADICTION, NEUTRAL, ENTAILMENT" in caplog.text


def test_order_of_names() -> None:
    assert order_of(ORDER, ("entailment", "neutral", "contradiction")) == [2, 1, 0]
    assert order_of(["LABEL_0", "LABEL_1"], ("0", "1")) is None
    assert order_of(["a", "b"], ("a", "b", "c")) is None


def test_a_regression_keeps_its_one_output(tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, num_labels=1, problem_type="regression"
    )
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    loaded, random = load_with_head(Backbone.load(str(tmp_path)), TASKS["stsb"], (), None, True)
    assert random == []
    assert loaded.classifier.out_proj.weight.equal(model.classifier.out_proj.weight)
