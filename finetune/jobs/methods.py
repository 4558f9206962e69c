"""The ways to adapt an encoder to a task: what is trained, and what a finished job stores.

| method | trained | stored |
| --- | --- | --- |
| finetune | everything | a stock model |
| mask | scores, binarized | a PEFT adapter of bits (`finetune.masks`) |
| lora | low-rank updates of queries and values or `target_modules`, the head | a PEFT adapter |
| shira | single weights, chosen at random, of the same layers, the head | a PEFT adapter |
| ia3 | a factor for each output of keys and values, each input of O, the head | a PEFT adapter |
| bitfit | biases, the head | these, in `trained.safetensors` |
| linear | the head | it, in `trained.safetensors` |
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import IA3Config, LoraConfig, ShiraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from finetune.adapters import BASE, TRAINED
from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from finetune.masks.architectures import role_of
from finetune.masks.card import write_card
from finetune.masks.identity import base_prefix, is_under
from finetune.masks.method import WRAPPED
from finetune.masks.targets import adapter_targets, choose_targets, encoder_layers, exactly


@dataclass(frozen=True)
class Head:
    """What a method needs to know beside the model: the task, its labels, its own parameters; and
    what a mask says of its training data, the columns of text and the most tokens of a row.

    `names` are the random parameters, or, where a finetuned model kept its head (`is_kept`), that
    head's.
    """

    task: str
    labels: tuple[str, ...]
    names: list[str]
    seed: int
    is_kept: bool = False
    text_columns: tuple[str, ...] = ()
    max_length: int | None = None

    @property
    def modules(self) -> list[str]:
        """Names of the modules with these parameters."""
        return sorted({name.rpartition(".")[0] for name in self.names})


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
    """A random head is masked, or trains; one that knows the task stays as it is, or trains on."""
    config = MaskConfig(
        **flags,
        seed=head.seed,
        head_modules=head.modules,
        mask_classifier=not head.is_kept,
        task=head.task,
        labels=list(head.labels),
        text_columns=list(head.text_columns) or None,
        max_length=head.max_length,
        stores_scores=True,  # in checkpoints, from which training resumes
    )
    return get_peft_model(model, config)


def _save_mask(model: Any, folder: Path) -> None:
    config = model.active_peft_config
    config.stores_scores = False
    model.save_pretrained(folder)
    write_card(config, folder)


def _lora(model: PreTrainedModel, head: Head, flags: dict[str, Any]) -> nn.Module:
    """On queries and values, or on `target_modules`; the head trains whole."""
    config = LoraConfig(
        r=flags["r"],
        lora_alpha=flags["alpha"],
        lora_dropout=flags["dropout"],
        target_modules=_lora_targets(model, flags),
        # Names like `dense` also fit layers of the head.
        exclude_modules=head.modules or None,
        modules_to_save=head.modules,
    )
    return get_peft_model(model, config)


def _lora_targets(model: PreTrainedModel, flags: dict[str, Any]) -> list[str] | str:
    return adapter_targets(flags.get("target_modules"), model, "QV")


def _shira(model: PreTrainedModel, head: Head, flags: dict[str, Any]) -> nn.Module:
    """On the layers that LoRA takes: as many trained weights as LoRA of rank `r` has."""
    config = ShiraConfig(
        r=flags["r"],
        random_seed=head.seed,
        target_modules=_own_layers(_shira_layers(model, flags), head),
        modules_to_save=head.modules,
    )
    return get_peft_model(model, config)


def _shira_layers(model: PreTrainedModel, flags: dict[str, Any]) -> dict[str, Any]:
    targets = adapter_targets(flags.get("target_modules"), model, "QV", nn.Linear)
    layers = encoder_layers(targets, model, nn.Linear)
    for name, layer in layers.items():
        most = layer.weight.numel() // sum(layer.weight.shape)
        if not 1 <= flags["r"] <= most:
            raise FinetuneError(
                f"--shira_r {flags['r']}: expected 1 to {most}: r (out + in) weights of {name} "
                f"train, which has {' × '.join(map(str, layer.weight.shape))}."
            )
    return layers


def _ia3(model: PreTrainedModel, head: Head, flags: dict[str, Any]) -> nn.Module:
    """As in its paper: on keys, values, and the activations that enter O, or `target_modules`."""
    layers = _ia3_layers(model, flags)
    config = IA3Config(
        target_modules=_own_layers(layers, head),
        feedforward_modules=exactly(name for name in layers if role_of(name) == "O"),
        modules_to_save=head.modules,
    )
    return get_peft_model(model, config)


def _ia3_layers(model: PreTrainedModel, flags: dict[str, Any]) -> dict[str, Any]:
    return encoder_layers(adapter_targets(flags.get("target_modules"), model, "KVO"), model)


def _own_layers(layers: Collection[str], head: Head) -> str:
    """Less what trains whole: a random pooler is inside the encoder."""
    return exactly(name for name in layers if not is_under(name, head.modules))


def _bitfit(model: PreTrainedModel, head: Head, flags: dict[str, Any]) -> nn.Module:
    return _only(model, {*_biases(model), *head.names})


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


def head_names(model: PreTrainedModel) -> list[str]:
    """Parameters of the head that a finetuned model brought: what stands around its encoder."""
    prefix = base_prefix(model)
    return [
        name for name, _ in model.named_parameters() if not (prefix and is_under(name, [prefix]))
    ]


def head_weights(model: nn.Module, head: Head) -> frozenset[nn.Parameter]:
    """Parameters of the wrapped model that are its head's weights; a mask's scores aren't."""
    return frozenset(
        parameter
        for name, parameter in model.named_parameters()
        if is_under(name.removeprefix(WRAPPED), head.modules) and ".mask_scores" not in name
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
        check=_lora_targets,
    ),
    "shira": Method(_shira, _save_pretrained, "shira", check=_shira_layers),
    "ia3": Method(_ia3, _save_pretrained, "ia3", check=_ia3_layers),
    "bitfit": Method(_bitfit, _save_trained, check=lambda model, flags: _biases(model)),
    "linear": Method(lambda model, head, flags: _only(model, head.names), _save_trained),
}
