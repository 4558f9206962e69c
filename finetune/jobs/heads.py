"""Where a job's weights come from, and which head they get.

A pretrained encoder gets a fresh head, drawn from the seed; so does the encoder of another task's
model. A model that was finetuned on this very task keeps its head, whatever method comes next, with
its classes put into our order by their names: the orders in use differ, and mapping by index gives
an accuracy of 5 to 35 % on MNLI.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from finetune.masks.apply import from_checkpoint
from finetune.tasks import Task
from finetune.tasks.encode import Backbone
from finetune.tasks.kinds import KINDS

logger = logging.getLogger(__name__)

HEADS = {
    "text": "ForSequenceClassification",
    "tokens": "ForTokenClassification",
    "choice": "ForMultipleChoice",
}


def load_with_head(
    backbone: Backbone, task: Task, labels: tuple[str, ...], start: Path | None
) -> tuple[PreTrainedModel, list[str]]:
    """The model for `task` and the names of its random parameters: none where it keeps its head.

    `start` is a finetuned model's folder, which is taken instead of the backbone's.
    """
    auto = KINDS[task.kind].model
    fields = head_fields(task, labels)
    source = backbone.name if start is None else str(start)
    config = backbone.config if start is None else AutoConfig.from_pretrained(source)
    architecture = next(iter(getattr(config, "architectures", None) or ()), "")
    if not architecture.endswith(tuple(HEADS.values())):
        model, loading = from_checkpoint(auto, source, **fields, output_loading_info=True)
        return model, sorted(loading["missing_keys"])
    if architecture.endswith(HEADS[task.kind]):
        order = _order(config, task, labels)
        if order is not None:
            model = from_checkpoint(auto, source)
            _reorder(model, order)
            for name, value in fields.items():
                setattr(model.config, name, value)
            return model, []
    if start is None:
        logger.warning(
            "%s has a head for %s; this task gets a fresh one", source, ", ".join(_names(config))
        )
    return _with_fresh_head(auto, source, fields)


def _order(config: PretrainedConfig, task: Task, labels: tuple[str, ...]) -> list[int] | None:
    """Where our classes stand in the head; None if it is for other ones."""
    if task.kind == "choice":
        return [0]
    if task.is_regression:
        return [0] if config.problem_type == "regression" and config.num_labels == 1 else None
    return order_of(_names(config), labels)


def _names(config: PretrainedConfig) -> list[str]:
    """The head's classes in the order of its outputs."""
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    return [names[index] for index in sorted(names)]


def head_fields(task: Task, labels: tuple[str, ...]) -> dict[str, Any]:
    """What `from_pretrained` must know of the task to give the model its head."""
    if task.kind == "choice":
        return {}
    if task.is_regression:
        return {"num_labels": 1, "problem_type": "regression"}
    return {"id2label": dict(enumerate(labels)), "label2id": {v: k for k, v in enumerate(labels)}}


def order_of(found: list[str], labels: tuple[str, ...]) -> list[int] | None:
    """Where each of `labels` stands among `found`; None if they aren't the same classes.

    A class is found by its name, and only those left over by their names in any case.
    """
    exact = {name: index for index, name in enumerate(found)}
    left = {name.casefold(): index for name, index in exact.items() if name not in labels}
    order = [exact.get(label, left.get(label.casefold(), -1)) for label in labels]
    # Two classes that differ in case alone, both under other spellings, can't be told apart.
    return order if sorted(order) == list(range(len(found))) else None


def _reorder(model: PreTrainedModel, order: list[int]) -> None:
    """Permute the classes of the last linear layer."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert last.out_features == len(order)
    with torch.no_grad():
        last.weight.copy_(last.weight[order])
        if last.bias is not None:  # decoders' heads have none
            last.bias.copy_(last.bias[order])


def _with_fresh_head(
    auto: Any, source: str, fields: dict[str, Any]
) -> tuple[PreTrainedModel, list[str]]:
    """The encoder of a finetuned model; its head stays behind."""
    config = AutoConfig.from_pretrained(source, **fields)
    config.problem_type = fields.get("problem_type")
    trained = from_checkpoint(auto, source)
    config.pad_token_id = getattr(trained.config, "pad_token_id", None)
    prefix = f"{trained.base_model_prefix}."
    state = {name: p for name, p in trained.state_dict().items() if name.startswith(prefix)}
    model, loading = type(trained).from_pretrained(
        None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
    )
    model.name_or_path = source  # what a mask over it names as its backbone
    return model, sorted(loading["missing_keys"])
