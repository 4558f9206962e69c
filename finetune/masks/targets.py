"""Which linear layers of a model get a mask, or another adapter."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

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
    split_role,
)
from finetune.masks.config import MaskConfig
from finetune.masks.identity import base_prefix, is_under

Targets = list[str] | str
ALL_LINEAR = "all-linear"
LINEAR_KINDS = (nn.Linear, Conv1D)  # GPT-2 has the latter


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
    names = list(dict.fromkeys([*names, *_stored_head(config, model)]))
    inner = [blocks.pattern(config.blocks, blocks.chosen(config.matrices))] if config.blocks else []
    return "|".join([*inner, *map(re.escape, names)])


def given_targets(config: MaskConfig, model: PreTrainedModel) -> Targets:
    """`config.target_modules` as PEFT takes them, and the head, which needs a mask, or weights of
    its own, to come back as it was: no checkpoint of the base has it.
    """
    assert config.target_modules is not None
    targets = encoder_targets(config.target_modules, model)
    head = _stored_head(config, model)
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


def adapter_targets(
    given: Targets | None, model: nn.Module, matrices: Sequence[str], kinds: Kinds = LINEAR_KINDS
) -> Targets:
    """`given` as PEFT reads it, or `matrices` of all blocks, with what is fused with them; where
    they can't be told by name, all linear layers of the blocks.
    """
    if given is not None:
        return encoder_targets(given, model, kinds)
    blocks = find_blocks(model, kinds)
    chosen = [name for name, role in blocks.roles.items() if set(split_role(role)) & set(matrices)]
    return blocks.pattern(range(blocks.depth), chosen or list(blocks.roles))


def encoder_layers(
    targets: Targets, model: nn.Module, kinds: Kinds = LINEAR_KINDS
) -> dict[str, Any]:
    """The layers that `targets` match, by name, less those of the head, which trains whole."""
    prefix = base_prefix(model)
    return {
        name: module
        for name, module in check_targets(targets, model, kinds).items()
        if not prefix or is_under(name, [prefix])
    }


def exactly(names: Iterable[str]) -> str:
    """`target_modules` that match these names alone: PEFT takes a list of names by their ends."""
    return "|".join(map(re.escape, names))


def _stored_head(config: MaskConfig, model: nn.Module) -> list[str]:
    """The task's own linear layers, where the mask holds them: masked, trained or as found.

    They are all outside the base, and `head_modules`, which a config that no model has filled in
    yet hasn't got; a random pooler is inside.
    """
    prefix, own = base_prefix(model), config.head_modules or []
    if not (config.mask_classifier or config.train_classifier or own):
        return []
    return [
        name
        for name in linear_names(model)
        if is_under(name, own) or (prefix and not is_under(name, [prefix]))
    ]


def check_targets(targets: Targets, model: nn.Module, kinds: Kinds = nn.Linear) -> dict[str, Any]:
    """What `targets` match: each pattern something, and only layers of these classes."""
    modules = plain_modules(model)
    found: dict[str, Any] = {}
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
        found |= matches
    return found
