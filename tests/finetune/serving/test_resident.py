"""Many masks on one backbone against the merged model of each."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModel, AutoModelForSequenceClassification

from finetune.errors import FinetuneError
from finetune.families.trial import make_base
from finetune.masks import MaskConfig
from finetune.masks.apply import from_checkpoint, load_masked
from finetune.masks.folder import MaskFolder
from finetune.serving.resident import Resident
from tests.finetune.conftest import shuffle_scores

IDS = torch.randint(4, 14, (3, 9), generator=torch.Generator().manual_seed(1))
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
TASKS = ("one", "two", "score", "tags")


Served = tuple[Resident, dict[str, torch.Tensor]]


def serve(backbone: Path, paths: Sequence[Path]) -> Served:
    """The masks on one backbone, and what each alone, merged into its own copy, answers."""
    folders = [MaskFolder.open(path) for path in paths]
    expected = {}
    for folder in folders:
        with torch.no_grad():
            expected[folder.name] = load_masked(folder, str(backbone))(**BATCH).logits
    assert len({logits.sum().item() for logits in expected.values()}) == len(folders)
    return Resident(str(backbone), folders), expected


@pytest.mark.parametrize(
    "settings",
    [{}, {"granularity": "head"}, {"granularity": "layer"}, {"frozen_dtype": "bfloat16"},
     {"target_modules": ["query", "output.dense"]}],
)  # fmt: skip
def test_every_task_answers_as_its_own_model(
    tiny_model: Path, make_mask: Callable[..., Path], settings: dict
) -> None:
    paths = [make_mask(task, seed, **settings) for seed, task in enumerate(TASKS)]
    served, expected = serve(tiny_model, paths)
    for tasks in (*([task] for task in TASKS), TASKS, TASKS[::-1], TASKS[1:3], ["one"]):
        found = served.logits(tasks, BATCH)
        assert list(found) == list(tasks)
        for task in tasks:
            assert torch.equal(found[task], expected[task]), task


def test_one_task_alone(tiny_model: Path, make_mask: Callable[..., Path]) -> None:
    served, expected = serve(tiny_model, [make_mask("two", 3)])
    assert torch.equal(served.logits(["two"], BATCH)["two"], expected["two"])


def test_the_base_never_changes(tiny_model: Path, make_mask: Callable[..., Path]) -> None:
    served, _ = serve(tiny_model, [make_mask(task) for task in TASKS])
    plain = AutoModel.from_pretrained(tiny_model, dtype=torch.float32)
    served.logits(TASKS, BATCH)
    for name, parameter in served.base.named_parameters():
        assert torch.equal(
            parameter,
            plain.get_parameter(
                name.replace(".layer.weight", ".weight").replace(".layer.bias", ".bias")
            ),
        ), name


@pytest.mark.parametrize("blocks", [["1"], "top:0", None])
def test_blocks_below_the_masks_are_computed_once(
    tiny_model: Path, make_mask: Callable[..., Path], blocks: list[str] | str | None
) -> None:
    """One task has fewer or more of them than the others: 1, all 2 or none."""
    paths = [
        make_mask("one", 1, blocks=["1"]),
        make_mask("two", 2, blocks=blocks),
        make_mask("score", 3, blocks=["1"]),
    ]
    served, expected = serve(tiny_model, paths)
    calls: list[int] = []
    for number, block in enumerate(served.base.encoder.layer):
        block.attention.register_forward_hook(lambda *_, number=number: calls.append(number))
    tasks = ["one", "two", "score"]
    for _ in range(2):
        for task, logits in served.logits(tasks, BATCH).items():
            assert torch.equal(logits, expected[task]), task
    assert calls.count(0) == 2 * (2 if blocks is None else 1)
    calls.clear()
    assert torch.equal(served.logits(["two"], BATCH)["two"], expected["two"])
    assert calls == [0, 1]


@pytest.mark.parametrize(
    "family", ["albert", "deberta", "gpt_neox", "modernbert", "xlm", "mobilebert"]
)
def test_families_share_their_lowest_blocks(family: str, tmp_path: Path) -> None:
    """ALBERT's one block runs several times, DeBERTa reads a weight itself, XLM has two lists."""
    backbone = make_base(family, tmp_path / "base").name
    folders = []
    for seed, blocks in enumerate(["top:1", "bottom:1", "top:1"]):
        torch.manual_seed(seed)
        base = from_checkpoint(AutoModelForSequenceClassification, backbone, num_labels=3)
        config = MaskConfig(task=f"task-{seed}", blocks=blocks, labels=["a", "b", "c"])
        model = get_peft_model(base, config)
        shuffle_scores(model, seed)
        model.save_pretrained(tmp_path / f"mask-{seed}")
        folders.append(MaskFolder.open(tmp_path / f"mask-{seed}"))
    served = Resident(backbone, folders)
    batch = {name: tensor.clamp(5, 50) for name, tensor in BATCH.items() if name == "input_ids"}
    found = served.logits(["task-2", "task-1", "task-0"], batch)
    for folder in folders:
        with torch.no_grad():
            expected = load_masked(folder, backbone)(**batch).logits
        torch.testing.assert_close(found[folder.name], expected)


def test_pretrained_layers_outside_the_base_are_held_once(tmp_path: Path) -> None:
    """ModernBERT's classifier has a norm that no mask changes."""
    base = make_base("modernbert", tmp_path / "base").name
    backbone = str(tmp_path / "backbone")
    from_checkpoint(AutoModelForSequenceClassification, base, num_labels=3).save_pretrained(
        backbone
    )
    folders = []
    for seed in range(2):
        model = from_checkpoint(AutoModelForSequenceClassification, backbone)
        config = MaskConfig(task=f"task-{seed}", labels=["a", "b", "c"])
        get_peft_model(model, config).save_pretrained(tmp_path / f"mask-{seed}")
        folders.append(MaskFolder.open(tmp_path / f"mask-{seed}"))
    first, second = (
        task.model.head.norm.weight for task in Resident(backbone, folders).tasks.values()
    )
    assert first.data_ptr() == second.data_ptr()
    assert first.untyped_storage().nbytes() == first.nbytes  # not the file that it was read from


def test_merged_and_applied_masks_give_the_same_logits(
    tiny_model: Path, make_mask: Callable[..., Path]
) -> None:
    folder = MaskFolder.open(make_mask("two", 3))
    with torch.no_grad():
        merged, applied = (
            load_masked(folder, str(tiny_model), merge=m)(**BATCH).logits for m in (True, False)
        )
    assert torch.equal(merged, applied)


def test_a_failed_answer_leaves_the_others_right(
    tiny_model: Path, make_mask: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, expected = serve(tiny_model, [make_mask(task) for task in ("one", "two")])
    with pytest.raises(IndexError):
        served.logits(["one", "two"], {"input_ids": IDS + 10_000})
    assert torch.equal(served.logits(["two"], BATCH)["two"], expected["two"])


def test_other_weights_are_refused_with_both_hashes(
    tiny_model: Path, make_mask: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = make_mask("one")
    other = AutoModel.from_pretrained(tiny_model)
    other.embeddings.word_embeddings.weight.data[3, 3] += 1e-6
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "other")
    own = json.loads((folder / "adapter_config.json").read_text())["base_sha256"]
    with pytest.raises(FinetuneError, match=f"(?s)other weights.*{own}.*this model has.*[0-9a-f]"):
        Resident(str(tmp_path / "other"), [MaskFolder.open(folder)])


def test_two_masks_of_one_task_go_by_their_folders(
    tiny_model: Path, make_mask: Callable[..., Path]
) -> None:
    paths = [make_mask("one", seed, name=f"seed-{seed}") for seed in (1, 2)]
    served = Resident(str(tiny_model), [MaskFolder.open(path) for path in paths])
    assert list(served.tasks) == [str(path) for path in paths]


def test_a_backbone_with_another_tasks_head(tmp_path: Path) -> None:
    """Three classes, and a norm in ModernBERT's head that no mask holds."""
    backbone = make_base("modernbert", tmp_path / "base").name
    torch.manual_seed(0)
    three = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=3)
    three.head.norm.weight.data.uniform_(0.5, 2)
    three.save_pretrained(tmp_path / "three")
    two = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "three", num_labels=2, ignore_mismatched_sizes=True
    )
    model = get_peft_model(two, MaskConfig(task="two", labels=["no", "yes"]))
    model.save_pretrained(tmp_path / "mask")
    with torch.no_grad():
        expected = model.eval()(**BATCH).logits
    served = Resident(str(tmp_path / "three"), [MaskFolder.open(tmp_path / "mask")])
    torch.testing.assert_close(served.logits(["two"], BATCH)["two"], expected)
