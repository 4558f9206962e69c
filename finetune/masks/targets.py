"""Which linear layers of a model get a mask, or another adapter."""

import re

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetune.errors import FinetuneError
from finetune.masks.architectures import (
    Kinds,
    chosen_blocks,
    find_blocks,
    linear_names,
    plain_modules,
)
from finetune.masks.config import MaskConfig
from finetune.masks.identity import base_prefix, is_under

Targets = list[str] | str
ALL_LINEAR = "all-linear"
LORA_KINDS = (nn.Linear, Conv1D)  # GPT-2 has the latter


def choose_targets(config: MaskConfig, model: PreTrainedModel) -> Targets:
    """What a new mask of this configuration is put on; FinetuneError if there is no such layer."""
    if config.target_modules is None:
        return default_targets(config, model)
    return given_targets(config, model)


def default_targets(config: MaskConfig, model: PreTrainedModel) -> str:
    """Regular expression of the layers that `blocks`, `matrices`, `mask_pooler`, … choose.

    Fills in `config.blocks`.
    """
    blocks = find_blocks(model)
    config.blocks = chosen_blocks(config.blocks, blocks.depth)
    names = []
    if config.mask_pooler:
        pooler = f"{base_prefix(model)}.pooler"  # a linear layer itself in ALBERT and BigBird
        names += [name for name in linear_names(model) if is_under(name, [pooler])]
    names += _masked_head(config, model)
    inner = [blocks.pattern(config.blocks, blocks.chosen(config.matrices))] if config.blocks else []
    return "|".join([*inner, *map(re.escape, names)])


def given_targets(config: MaskConfig, model: PreTrainedModel) -> Targets:
    """`config.target_modules` as PEFT takes them, and the head, which needs a mask, or weights of
    its own, to come back as it was: no checkpoint of the base has it.
    """
    assert config.target_modules is not None
    targets = encoder_targets(config.target_modules, model)
    head = _masked_head(config, model)
    if isinstance(targets, str):
        return "|".join([f"({targets})", *map(re.escape, head)])
    return [*targets, *head]


def encoder_targets(targets: Targets, model: nn.Module, kinds: Kinds = nn.Linear) -> Targets:
    """`target_modules` with "all-linear" spelled out: every linear layer of the encoder.

    PEFT's own reading of it takes some heads in, by their names.
    """
    if not isinstance(targets, str) or targets.lower() != ALL_LINEAR:
        check_targets(targets, model, kinds)
        return targets
    prefix = base_prefix(model)
    return [name for name in linear_names(model, kinds) if not prefix or is_under(name, [prefix])]


def lora_targets(given: Targets | None, model: nn.Module) -> Targets:
    """`given` as PEFT reads it, or queries and values of all blocks, as LoRA's authors; where they
    can't be told by name, all linear layers of the blocks.
    """
    if given is not None:
        return encoder_targets(given, model, LORA_KINDS)
    blocks = find_blocks(model, LORA_KINDS)
    chosen = [name for name, role in blocks.roles.items() if role in ("Q", "V", "QKV")]
    return blocks.pattern(range(blocks.depth), chosen or list(blocks.roles))


def _masked_head(config: MaskConfig, model: nn.Module) -> list[str]:
    """The linear layers outside the base, where the config wants them masked or trained."""
    prefix = base_prefix(model)
    if not prefix or not (config.mask_classifier or config.train_classifier):
        return []
    return [name for name in linear_names(model) if not is_under(name, [prefix])]


def check_targets(targets: Targets, model: nn.Module, kinds: Kinds = nn.Linear) -> None:
    """Each pattern of `targets` must match something, and only layers of these classes."""
    modules = plain_modules(model)
    patterns = (
        [targets] if isinstance(targets, str) else [rf"(.*\.)?{re.escape(t)}" for t in targets]
    )
    for pattern in patterns:
        try:
            matches = {name: module for name, module in modules if re.fullmatch(pattern, name)}
        except re.error as error:
            raise FinetuneError(
                f"target_modules: {pattern} is no regular expression: {error}."
            ) from None
        if not matches:
            raise FinetuneError(
                f"target_modules: {pattern} matches nothing; there are: "
                f"{', '.join(linear_names(model, kinds))}."
            )
        for name, module in matches.items():
            if not isinstance(module, kinds):
                raise FinetuneError(
                    f"target_modules: {name} is a {type(module).__name__}, expected a Linear."
                )
