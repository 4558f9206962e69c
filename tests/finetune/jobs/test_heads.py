"""Which head a model has: its classes are matched by name, never by index."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune.glue import main
from finetune.jobs.heads import load_with_head, order_of
from finetune.jobs.load import load_model
from finetune.masks.folder import MaskFolder
from finetune.serving.resident import Resident
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
    model, random = load_with_head(backbone, task, task.labels or (), None)
    theirs = AutoModelForSequenceClassification.from_pretrained(mnli_model)
    inputs = backbone.tokenizer("red sky", "blue sea", return_tensors="pt")
    with torch.no_grad():
        ours, other = model.eval()(**inputs).logits[0], theirs.eval()(**inputs).logits[0]
    for index, label in model.config.id2label.items():
        assert ours[index] == other[ORDER.index(label.upper())]
    assert random == [] and list(model.config.id2label.values()) == list(task.labels or ())


@pytest.mark.parametrize("task", ["rte", "pos"])
def test_any_other_head_stays_behind(
    mnli_model: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = TASKS[task]
    model, random = load_with_head(Backbone.load(str(mnli_model)), row, row.labels or (), None)
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


@given(st.permutations(["HUM", "hum", "Hum", "LOC", "loc", "NUM"]), st.data())
def test_classes_that_differ_only_in_case_are_told_apart(found: list[str], data: Any) -> None:
    labels = data.draw(st.permutations(found))
    order = order_of(found, tuple(labels))
    assert order is not None and [found[index] for index in order] == labels


def test_another_spelling_counts_only_where_it_is_one_class() -> None:
    assert order_of(["loc", "hum", "HUM"], ("HUM", "hum", "LOC")) == [2, 1, 0]
    assert order_of(["HUM", "hum"], ("Hum", "hUM")) is None
    assert order_of(["hum", "loc"], ("HUM", "hum")) is None
    assert order_of(["a", "a"], ("a", "A")) is None


def test_a_regression_keeps_its_one_output(tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, num_labels=1, problem_type="regression"
    )
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    loaded, random = load_with_head(Backbone.load(str(tmp_path)), TASKS["stsb"], (), None)
    assert random == []
    assert loaded.classifier.out_proj.weight.equal(model.classifier.out_proj.weight)


LIBRARY = ("lib-blue", "lib-green", "lib-red")


@pytest.fixture(scope="module")
def finetuned(tiny_model: Path, tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job's folder, finetuned on `library`."""
    out = tmp_path_factory.mktemp("finetuned")
    main(words(tiny_model, tiny_tasks, out, "--num_train_epochs", "3", "--learning_rate", "0.01"))
    return out / "library/finetune/seed-1"


def words(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--model_name_or_path", str(model), "--data_dir", str(data), "--output_dir", str(out)),
        *("--task_name", "library", "--seed", "1", "--max_seq_length", "16", "--bf16", "false"),
        *more,
    ]


def with_classes_in(order: list[int], finetuned: Path, folder: Path) -> Path:
    """The same model in `folder`, the classes of its head in another order."""
    model = AutoModelForSequenceClassification.from_pretrained(finetuned)
    last = model.classifier.out_proj
    last.weight.data, last.bias.data = last.weight.data[order], last.bias.data[order]
    model.config.id2label = {index: LIBRARY[old] for index, old in enumerate(order)}
    model.config.label2id = {label: index for index, label in model.config.id2label.items()}
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(finetuned).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("method", "order"),
    [("mask", [0, 1, 2]), *((method, [2, 0, 1]) for method in ("mask", "lora", "linear"))],
)
def test_a_second_stage_begins_with_the_finetuned_models_answers(
    finetuned: Path, tiny_tasks: Path, tmp_path: Path, method: str, order: list[int]
) -> None:
    """All bits kept and no training: what is stored, loaded and served answers as before."""
    stock = AutoModelForSequenceClassification.from_pretrained(finetuned).eval()
    tokenizer = AutoTokenizer.from_pretrained(finetuned)
    inputs = tokenizer(["red sky", "blue sea one"], padding=True, return_tensors="pt")
    first = with_classes_in(order, finetuned, tmp_path / "first")
    still = ["--mask_init", "ones", "--max_steps", "1", "--learning_rate", "1e-9"]
    main(words(first, tiny_tasks, tmp_path / "out", "--method", method, *still))
    job = tmp_path / "out/library" / method / "seed-1"
    with torch.no_grad():
        expected = stock(**inputs).logits
        found = [load_model(job, str(first))(**inputs).logits]
    if method == "mask":
        folder = MaskFolder.open(job)
        assert not any("classifier" in name for name in folder.kinds)  # the head isn't masked
        found.append(Resident(str(first), [folder]).logits(["library"], inputs)["library"])
    for logits in found:
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("trains", ["false", "true"])
def test_start_from_the_same_task_takes_the_head_along(
    finetuned: Path, tiny_model: Path, tiny_tasks: Path, trains: str
) -> None:
    out = finetuned.parents[2]
    flags = ["--method", "mask", "--start_from", "library", "--train_classifier", trains]
    steps = ["--max_steps", "2", "--overwrite_cache", "--mask_blocks", "1"]
    folder = out / "library/mask/seed-1"
    if folder.exists():
        folder.rename(folder.with_name("other"))
    main(words(tiny_model, tiny_tasks, out, *flags, *steps))
    stored = load_file(folder / "adapter_model.safetensors")
    head = load_file(finetuned / "model.safetensors")["classifier.out_proj.weight"]
    equal = stored["base_model.model.classifier.out_proj.mask_weight"].equal(head)
    assert equal == (trains == "false")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(finetuned)


@pytest.mark.parametrize("method", ["mask", "lora", "linear"])
def test_what_was_learned_over_another_tasks_model_loads(
    mnli_model: Path, tiny_tasks: Path, tmp_path: Path, method: str
) -> None:
    """Three classes in the backbone's head, two in the task's."""
    flags = ["--task_name", "rte", "--method", method, "--max_steps", "1"]
    main(words(mnli_model, tiny_tasks, tmp_path, *flags))
    folder = tmp_path / "rte" / method / "seed-1"
    assert load_model(folder, str(mnli_model)).config.num_labels == 2
    if method == "mask":
        served = Resident(str(mnli_model), [MaskFolder.open(folder)])
        logits = served.logits(["rte"], {"input_ids": torch.tensor([[0, 5, 2]])})["rte"]
        assert logits.shape == (1, 2)
