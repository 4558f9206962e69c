"""Many masks on one backbone against the merged model of each."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune.errors import FinetuneError
from finetune.masks.apply import load_masked
from finetune.masks.folder import MaskFolder
from finetune.masks.resident import Resident

IDS = torch.randint(4, 14, (3, 9), generator=torch.Generator().manual_seed(1))
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
TASKS = ("one", "two", "score", "tags")


@pytest.mark.parametrize(
    ("settings", "cached"),
    [({}, 0), ({}, 3), ({"granularity": "head"}, 1), ({"granularity": "head"}, 0),
     ({"frozen_dtype": "bfloat16"}, 0), ({"frozen_dtype": "bfloat16"}, 1)],
)  # fmt: skip
def test_every_task_answers_as_its_own_model(
    tiny_model: Path, make_mask: Callable[..., Path], cached: int, settings: dict
) -> None:
    paths = [make_mask(task, seed, **settings) for seed, task in enumerate(TASKS)]
    folders = [MaskFolder.open(path) for path in paths]
    expected = {}
    for folder in folders:
        with torch.no_grad():
            expected[folder.name] = load_masked(folder, str(tiny_model))(**BATCH).logits
    served = Resident(str(tiny_model), folders, cached=cached)
    before = {name: p.clone() for name, p in served.base.named_parameters()}
    for task in (*TASKS, *reversed(TASKS), "one", "one", "tags"):
        assert torch.equal(served.logits(task, BATCH), expected[task]), task
    served._remove()
    for name, parameter in served.base.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert len({logits.sum().item() for logits in expected.values()}) == len(TASKS)


def test_merged_and_applied_masks_give_the_same_logits(
    tiny_model: Path, make_mask: Callable[..., Path]
) -> None:
    folder = MaskFolder.open(make_mask("two", 3))
    with torch.no_grad():
        merged, applied = (
            load_masked(folder, str(tiny_model), merge=m)(**BATCH).logits for m in (True, False)
        )
    assert torch.equal(merged, applied)


def test_a_failed_switch_leaves_the_base_whole(
    tiny_model: Path, make_mask: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [MaskFolder.open(make_mask(task)) for task in ("one", "two")]
    served = Resident(str(tiny_model), folders)
    before = {name: p.clone() for name, p in served.base.named_parameters()}
    last = list(served.tasks["one"].coded)[-1]
    served.tasks["one"].coded[last] = served.tasks["one"].coded[last][:-2]
    with pytest.raises(FinetuneError, match="damaged"):
        served.logits("one", BATCH)
    expected = load_masked(folders[1], str(tiny_model))(**BATCH).logits
    assert torch.equal(served.logits("two", BATCH), expected.detach())
    served._remove()
    for name, parameter in served.base.named_parameters():
        assert torch.equal(parameter, before[name])


def test_other_weights_are_refused_with_both_hashes(
    tiny_model: Path, make_mask: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

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
