"""Which linear layers of a model get a mask."""

import re

from torch import nn
from transformers import PreTrainedModel

from finetune.errors import FinetuneError
from finetune.masks.architectures import MATRICES, chosen_blocks, find_architecture
from finetune.masks.config import MaskConfig
from finetune.masks.identity import base_prefix


def default_targets(config: MaskConfig, model: PreTrainedModel) -> str:
    """Regular expression of the modules that `blocks`, `matrices`, ... choose; all must exist.

    Fills in `config.blocks`.
    """
    names = find_architecture(model.config.model_type)
    prefix = base_prefix(model)
    stem = f"{prefix}.{names.blocks}" if prefix else names.blocks
    depth = len(model.get_submodule(stem))  # type: ignore[arg-type]
    config.blocks = chosen_blocks(config.blocks, depth)
    inner = _inner_names(config.matrices, names.matrices)
    linear = [name for name, module in plain_modules(model) if isinstance(module, nn.Linear)]
    single = []
    if config.mask_pooler:
        single += [name for name in linear if name == f"{prefix}.pooler.dense"]
    if config.mask_classifier or config.train_classifier:
        single += [name for name in linear if prefix and not name.startswith(f"{prefix}.")]
    absent = [
        f"{stem}.{block}.{name}"
        for block in config.blocks
        for name in inner
        if f"{stem}.{block}.{name}" not in linear
    ]
    if absent:
        raise FinetuneError(f"No linear {', '.join(absent)}; there are: {', '.join(linear)}.")
    grouped = rf"{re.escape(stem)}\.({'|'.join(map(str, config.blocks))})\."
    grouped += f"({'|'.join(map(re.escape, inner))})"
    return "|".join([grouped, *map(re.escape, single)])


def _inner_names(matrices: list[str], names: tuple[str, ...]) -> list[str]:
    """Module names within a block; a fused matrix has to be chosen whole."""
    chosen = [names[MATRICES.index(matrix)] for matrix in matrices]
    for name in set(chosen):
        whole = [m for m, other in zip(MATRICES, names, strict=True) if other == name]
        if not set(whole) <= set(matrices):
            raise FinetuneError(
                f"matrices: found {matrices}, but this encoder keeps {', '.join(whole)} in one, "
                f"{name}: name all of them or none."
            )
    return list(dict.fromkeys(chosen))


def plain_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Named modules; where an adapter is already, the linear layer inside it under its old name."""
    modules = []
    for name, module in model.named_modules():
        if not name or ".base_layer" in name or ".mask_" in name:
            continue
        modules.append((name, getattr(module, "base_layer", module)))
    return modules


def check_targets(config: MaskConfig, model: nn.Module) -> None:
    """Each pattern of `target_modules` must match something, and only linear layers."""
    modules = plain_modules(model)
    wanted = config.target_modules
    patterns = (
        [wanted] if isinstance(wanted, str) else [rf"(.*\.)?{re.escape(w)}" for w in wanted or ()]
    )
    for pattern in patterns:
        matches = {name: module for name, module in modules if re.fullmatch(pattern, name)}
        if not matches:
            linear = [name for name, module in modules if isinstance(module, nn.Linear)]
            raise FinetuneError(
                f"target_modules: {pattern} matches nothing; there are: {', '.join(linear)}."
            )
        for name, module in matches.items():
            if not isinstance(module, nn.Linear):
                raise FinetuneError(
                    f"target_modules: {name} is a {type(module).__name__}, expected a Linear."
                )
