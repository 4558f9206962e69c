"""Encoders of base size with random weights, masks and LoRA adapters on them, and what answers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    ModernBertConfig,
    PreTrainedModel,
)

from finetune.masks import MaskConfig
from finetune.masks.folder import MaskFolder
from finetune.serving.answers import Separate
from finetune.serving.resident import Resident

BERT, MODERNBERT = "BERT-base", "ModernBERT-base"
CONFIGS = {BERT: BertConfig, MODERNBERT: ModernBertConfig}
QUERY_AND_VALUE = {BERT: ["query", "value"], MODERNBERT: ["Wqkv"]}


def make_model(encoder: str = BERT, labels: int = 2) -> PreTrainedModel:
    """An encoder of transformers' default sizes, the same random weights each time."""
    torch.manual_seed(0)
    config = CONFIGS[encoder]()
    config.num_labels = labels
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return model


def lora(encoder: str = BERT) -> LoraConfig:
    """The usual recipe."""
    return LoraConfig(r=8, target_modules=QUERY_AND_VALUE[encoder], modules_to_save=["classifier"])


def write_masks(folder: Path, count: int, encoder: str = BERT) -> list[Path]:
    """The backbone and `count` masks on it with 5 % zeros, as training leaves them."""
    make_model(encoder).save_pretrained(folder / "base")
    return [write_mask(folder, index) for index in range(count)]


def write_mask(folder: Path, index: int, zeros: bool = True) -> Path:
    """A mask on the backbone in `folder`; without `zeros` it drops nothing."""
    path = folder / (f"mask-{index}" if zeros else f"mask-of-ones-{index}")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    config = MaskConfig(seed=index, task=f"task-{index}", labels=["no", "yes"])
    if not zeros:
        config.init = "ones"
    get_peft_model(model, config).save_pretrained(str(path))
    return path


def inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
    """Random token rows."""
    ids = torch.randint(1000, 30000, (batch, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Adapters:
    """One backbone with LoRA adapters, switched as PEFT does."""

    def __init__(self, model: PreTrainedModel, names: list[str], config: LoraConfig) -> None:
        self.model = get_peft_model(model, config, adapter_name=names[0])
        for name in names[1:]:
            self.model.add_adapter(name, config)
        self.model.eval().requires_grad_(False)

    def logits(
        self, tasks: Sequence[str], batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Output of each of `tasks`."""
        found = {}
        for task in tasks:
            self.model.set_adapter(task, inference_mode=True)
            with torch.inference_mode():
                found[task] = self.model(**batch).logits
        return found


Server = Separate | Resident | Adapters


def read_base(folder: Path) -> PreTrainedModel:
    """The backbone with all its weights in memory: unread, they would be mapped from the file."""
    model = AutoModelForSequenceClassification.from_pretrained(folder / "base").eval()
    for parameter in model.parameters():
        parameter.sum()
    return model


def make_server(case: str, folder: Path, tasks: list[str], encoder: str = BERT) -> Server:
    """What answers for `tasks`."""
    if case in ("one model", "copies"):
        model = read_base(folder)
        return Separate({t: copy.deepcopy(model) if case == "copies" else model for t in tasks})
    if case == "LoRA":
        return Adapters(read_base(folder), tasks, lora(encoder))
    if case == "masks of ones":
        paths = [write_mask(folder, index, zeros=False) for index in range(len(tasks))]
    else:
        paths = [folder / f"mask-{index}" for index in range(len(tasks))]
    folders = [MaskFolder.open(path) for path in paths]
    return Resident(str(folder / "base"), folders)
