"""Backbone and mask folder → the task's model."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from finetune.errors import FinetuneError
from finetune.masks.folder import MaskFolder


def auto_class(model_class: str | None) -> Any:
    """`AutoModelFor…` for what a mask's config calls `model_class`."""
    found = getattr(transformers, f"AutoModelFor{model_class}", None)
    if found is None:
        raise FinetuneError(
            f"model_class: found {model_class!r}, expected SequenceClassification, "
            "TokenClassification or another NAME of transformers' AutoModelForNAME."
        )
    return found


def head_fields(folder: MaskFolder) -> dict[str, Any]:
    """What the model's config has to say of the head, as keyword arguments of from_pretrained."""
    labels = folder.config.labels
    if labels is None:
        out = [t.shape[0] for n, t in folder.own().items() if n.endswith(".weight")]
        return {"num_labels": out[-1]} if out else {}
    return label_fields(labels)


def label_fields(labels: Sequence[str]) -> dict[str, Any]:
    """The same for these classes, in the order of the logits; none for a regression."""
    if not labels:
        return {"num_labels": 1, "problem_type": "regression"}
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def from_checkpoint(auto: Any, name: str, **fields: Any) -> Any:
    """`auto.from_pretrained(name, **fields)` in fp32, whatever the file stores.

    transformers loads half-precision files in half precision, in which an optimizer's steps round
    to nothing (bf16) or overflow (fp16). Decoders get the tokenizer's padding id where their config
    has none: their heads look for the last token before the padding.
    """
    loaded = auto.from_pretrained(name, dtype=torch.float32, **fields)
    config = (loaded[0] if isinstance(loaded, tuple) else loaded).config
    if getattr(config, "pad_token_id", 0) is None:  # Perceiver's has no such field
        config.pad_token_id = AutoTokenizer.from_pretrained(name).pad_token_id
    return loaded


def check_shapes(folder: MaskFolder, backbone: str) -> None:
    """FinetuneError if a mask or a weight in `folder` doesn't fit the model that `backbone` makes.

    The model has no values here: nothing is allocated that is as large as the folder says.
    """
    config = AutoConfig.from_pretrained(backbone, **head_fields(folder))
    with torch.device("meta"):
        model = auto_class(folder.config.model_class).from_config(config)
    folder.check_shapes(model)


def load_masked(folder: MaskFolder, backbone: str, merge: bool = True) -> PreTrainedModel:
    """The task's model in evaluation mode; not merged, the masks are applied in every forward.

    Raises FinetuneError if the folder is damaged or was learned on other weights.
    """
    check_shapes(folder, backbone)
    auto = auto_class(folder.config.model_class)
    # The backbone may have another task's head, which the mask's own replaces.
    fields = head_fields(folder) | {"ignore_mismatched_sizes": True}
    base = from_checkpoint(auto, backbone, **fields)
    model: Any = PeftModel.from_pretrained(base, str(folder.path))
    return (model.merge_and_unload() if merge else model).eval()
