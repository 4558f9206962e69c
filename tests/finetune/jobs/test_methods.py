"""Each method trains what it says and nothing else, and its stored part brings the model back."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from finetune.errors import FinetuneError
from finetune.glue import main
from finetune.jobs.load import load_model
from finetune.jobs.plan import make_plan
from finetune.jobs.train import build_model

METHODS = ["lora", "shira", "ia3", "bitfit", "linear"]


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("methods")
    main(
        [
            *("--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)),
            *("--output_dir", str(out), "--task_name", "library", "--seed", "1"),
            *("--method", *METHODS, "--max_seq_length", "16", "--num_train_epochs", "3"),
            *(
                "--learning_rate",
                "0.02",
                "--lora_r",
                "2",
                "--lora_alpha",
                "4",
                "--shira_r",
                "2",
                "--bf16",
                "false",
            ),
        ]
    )
    return out


@pytest.mark.parametrize("method", METHODS)
def test_what_is_loaded_scores_as_it_was_trained(
    runs: Path, tiny_model: Path, tiny_tasks: Path, method: str
) -> None:
    folder = runs / "library" / method / "seed-1"
    model = load_model(folder, str(tiny_model))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lines = (tiny_tasks / "library" / "dev.tsv").read_text().splitlines()[1:]
    right = 0
    for text, label in (line.split("\t") for line in lines):
        with torch.no_grad():
            answer = int(model(**tokenizer(text, return_tensors="pt")).logits.argmax())
        right += ("lib-blue", "lib-green", "lib-red")[answer] == label
    results = json.loads((folder / "all_results.json").read_text())
    assert results["eval_accuracy"] == pytest.approx(right / len(lines))


@pytest.mark.parametrize("method", METHODS)
def test_only_its_own_part_of_the_encoder_moves(runs: Path, tiny_model: Path, method: str) -> None:
    before = AutoModel.from_pretrained(tiny_model, add_pooling_layer=False).state_dict()
    after = load_model(runs / "library" / method / "seed-1", str(tiny_model)).base_model
    moved = {name for name, value in after.state_dict().items() if not before[name].equal(value)}
    expected = {
        "lora": {name for name in before if name.endswith(("query.weight", "value.weight"))},
        "shira": {name for name in before if name.endswith(("query.weight", "value.weight"))},
        # Biases of a fresh model are 0, whatever the factor.
        "ia3": {
            name for name in before if re.search(r"(key|value|[^n]\.output\.dense)\.weight", name)
        },
        "bitfit": {name for name in before if name.endswith(".bias")},
        "linear": set(),
    }
    # Adding the same bias to every key moves no attention: its gradient is 0 but for rounding.
    keys = {name for name in before if name.endswith("key.bias")}
    assert moved - keys == expected[method] - keys


def test_what_is_stored_is_small_and_complete(runs: Path) -> None:
    stored = load_file(runs / "library" / "linear" / "seed-1" / "trained.safetensors")
    head = {
        f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")
    }
    assert set(stored) == head
    names = load_file(runs / "library" / "lora" / "seed-1" / "adapter_model.safetensors")
    assert all("lora_" in name or "classifier" in name for name in names)
    shapes = {tuple(value.shape) for name, value in names.items() if "lora_A" in name}
    assert shapes == {(2, 16)}


@pytest.mark.parametrize("method", ["lora", "shira", "ia3"])
def test_target_modules_are_the_encoders(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path, method: str
) -> None:
    """The head, which has a layer `dense`, trains whole; a factor stands before O alone."""
    plan = make_plan(
        [
            *("--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)),
            *("--output_dir", str(tmp_path), "--task_name", "library", "--method", method),
            *("--target_modules", "dense", "value", "--shira_r", "2"),
        ]
    )
    ((job,),) = plan.rounds
    model, _ = build_model(job, plan.inputs.backbone, plan.inputs.encoded(job))
    adapted = {
        name.removeprefix("base_model.model.roberta.encoder.layer."): module
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    ends = ("attention.self.value", "attention.output.dense", "intermediate.dense", "output.dense")
    assert set(adapted) == {f"{block}.{end}" for block in (0, 1) for end in ends}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    whole = {plain(name) for name in trained if "modules_to_save" in name}
    assert whole == {name for name in map(plain, trained) if name.startswith("classifier.")}
    assert len(whole) == 4
    if method == "ia3":
        before = {name for name, layer in adapted.items() if layer.is_feedforward}
        assert before == {"0.output.dense", "1.output.dense"}


def test_more_of_shira_than_a_layer_holds(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    command = [
        *("--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)),
        *("--output_dir", str(tmp_path), "--task_name", "library", "--method", "shira"),
        *("--shira_r", "9"),
    ]
    with pytest.raises(FinetuneError, match=r"--shira_r 9: expected 1 to 8: .*query.*16 × 16"):
        make_plan(command)


def plain(name: str) -> str:
    """The name of a stock model's parameter in the name that a wrapper gave it."""
    name = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
    return name.replace(".mask_weight.default", ".weight").replace(".mask_bias.default", ".bias")


@pytest.mark.parametrize("method", ["finetune", "mask", *METHODS])
def test_the_head_may_train_at_a_rate_of_its_own(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path, method: str
) -> None:
    """One step of Adam moves a weight by its rate, whatever the gradient."""
    command = [
        *("--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)),
        *("--output_dir", str(tmp_path), "--task_name", "library", "--seed", "1"),
        *("--method", method, "--max_seq_length", "16", "--max_steps", "1", "--bf16", "false"),
        *("--learning_rate", "0.05", "--classifier_learning_rate", "0.001", "--weight_decay", "0"),
        *("--lr_scheduler_type", "constant", "--max_grad_norm", "0"),
        *(("--train_classifier", "true") if method == "mask" else ()),
    ]
    plan = make_plan(command)
    ((job,),) = plan.rounds
    wrapped, _ = build_model(job, plan.inputs.backbone, plan.inputs.encoded(job))
    before = {plain(name): value for name, value in wrapped.named_parameters()}
    main(command)
    assert json.loads((job.folder / "job.json").read_text())["classifier_learning_rate"] == 0.001
    trained = load_model(job.folder, str(tiny_model))
    moved = {
        name: (value - before[name]).abs().max().item()
        for name, value in trained.named_parameters()
        if name in before
    }
    head = {name: by for name, by in moved.items() if "classifier" in name}
    assert head and max(head.values()) == pytest.approx(0.001, rel=0.01)
    if method in ("finetune", "bitfit"):
        body = [by for name, by in moved.items() if name not in head]
        assert max(body) == pytest.approx(0.05, rel=0.01)


def test_a_frozen_head_has_no_rate(tiny_model: Path, tiny_tasks: Path, tmp_path: Path) -> None:
    command = [
        *("--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)),
        *("--output_dir", str(tmp_path), "--task_name", "library", "--method", "mask"),
        *("--classifier_learning_rate", "0.001"),
    ]
    with pytest.raises(FinetuneError, match="--train_classifier true"):
        make_plan(command)
