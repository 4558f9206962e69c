"""The ways to adapt an encoder to a task: what is trained, and what a finished job stores.

| method | trained | stored |
| --- | --- | --- |
| finetune | everything | a stock model |
| mask | scores, binarized | a PEFT adapter of bits (`finetune.masks`) |
| lora | low-rank updates of queries and values or `target_modules`, the head | a PEFT adapter |
| bitfit | biases, the head | these, in `trained.safetensors` |
| linear | the head | it, in `trained.safetensors` |
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from finetune.adapters import BASE, TRAINED
from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from finetune.masks.identity import base_prefix, is_under
from finetune.masks.method import WRAPPED
from finetune.masks.targets import choose_targets, lora_targets


@dataclass(frozen=True)
class Head:
    """What a method needs to know beside the model: the task, its labels, the random parameters."""

    task: str
    labels: tuple[str, ...]
    random: list[str]
    seed: int

    @property
    def modules(self) -> list[str]:
        """Names of the modules that no checkpoint has."""
        return sorted({name.rpartition(".")[0] for name in self.random})


@dataclass(frozen=True)
class Method:
    """`wrap` makes the model ready to train, in place or around it; `save` stores what it learned.

    `flags` is the section of `Job.method_flags` that it takes. `check` raises FinetuneError for a
    model, be it on the meta device, that the method with these flags can't be applied to.
    """

    wrap: Callable[[PreTrainedModel, Head, dict[str, Any]], nn.Module]
    save: Callable[[nn.Module, Path], None]
    flags: str | None = None
    check: Callable[[PreTrainedModel, dict[str, Any]], object] = lambda model, flags: None


def _save_pretrained(model: nn.Module, folder: Path) -> None:
    model.save_pretrained(folder)  # type: ignore[operator]


def _mask(model: PreTrainedModel, head: Head, flags: dict[str, Any]) -> nn.Module:
    config = MaskConfig(
        **flags,
        seed=head.seed,
        head_modules=head.modules,
        task=head.task,
        labels=list(head.labels),
        stores_scores=True,  # in checkpoints, which training goes on from
    )
    return get_peft_model(model, config)


def _save_mask(model: Any, folder: Path) -> None:
    model.active_peft_config.stores_scores = False
    model.save_pretrained(folder)


def _lora(model: PreTrainedModel, head: Head, flags: dict[str, Any]) -> nn.Module:
    """On queries and values, or on `target_modules`; the head trains whole."""
    config = LoraConfig(
        r=flags["r"],
        lora_alpha=flags["alpha"],
        lora_dropout=flags["dropout"],
        target_modules=lora_targets(flags.get("target_modules"), model),
        # Names like `dense` also fit layers of the head.
        exclude_modules=head.modules or None,
        modules_to_save=head.modules,
    )
    return get_peft_model(model, config)


def _bitfit(model: PreTrainedModel, head: Head, flags: dict[str, Any]) -> nn.Module:
    return _only(model, {*_biases(model), *head.random})


def _biases(model: PreTrainedModel) -> list[str]:
    # DeBERTa and Funnel have biases of other names: q_bias, r_w_bias.
    names = [name for name, _ in model.named_parameters() if re.search(r"(\.|_)bias$", name)]
    if not any(is_under(name, [base_prefix(model)]) for name in names):
        raise FinetuneError(
            "--method bitfit: this encoder has no biases; expected mask, lora, finetune, or linear "
            "to train the head alone."
        )
    return names


def _only(model: PreTrainedModel, names: Collection[str]) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model


def _save_trained(model: nn.Module, folder: Path) -> None:
    trained = {
        name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad
    }
    save_file(
        {name: value.cpu() for name, value in trained.items()},
        folder / TRAINED,
        metadata={"format": "pt", BASE: model.name_or_path},  # type: ignore[dict-item]
    )
    model.config.save_pretrained(folder)  # type: ignore[union-attr, operator]


def head_weights(model: nn.Module, head: Head) -> frozenset[nn.Parameter]:
    """Parameters of the wrapped model that are its head's weights; a mask's scores aren't."""
    # A model that brought its head has nothing random: it is what stands around the encoder.
    encoder = base_prefix(model)
    modules = head.modules or [name for name, _ in model.named_children() if name != encoder]
    return frozenset(
        parameter
        for name, parameter in model.named_parameters()
        if is_under(name.removeprefix(WRAPPED), modules) and ".mask_scores" not in name
    )


METHODS: dict[str, Method] = {
    "finetune": Method(lambda model, head, flags: model, _save_pretrained),
    "mask": Method(
        _mask,
        _save_mask,
        "mask",
        check=lambda model, flags: choose_targets(MaskConfig(**flags), model),
    ),
    "lora": Method(
        _lora,
        _save_pretrained,
        "lora",
        check=lambda model, flags: lora_targets(flags.get("target_modules"), model),
    ),
    "bitfit": Method(_bitfit, _save_trained, check=lambda model, flags: _biases(model)),
    "linear": Method(lambda model, head, flags: _only(model, head.random), _save_trained),
}
