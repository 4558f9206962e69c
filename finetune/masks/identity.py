"""Which weights a mask belongs to: their hash."""

import hashlib
from collections.abc import Iterable

import torch
from torch import nn


def weights_sha256(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over `named` tensors sorted by name: per tensor `name dtype shape` and its bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        data = tensor.detach().cpu().contiguous()
        header = f"{name} {str(data.dtype).removeprefix('torch.')} {list(data.shape)}\n"
        digest.update(header.encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def base_prefix(model: nn.Module) -> str:
    """The attribute that holds the base of a transformers model, "" for any other module."""
    prefix = getattr(model, "base_model_prefix", "")
    return prefix if hasattr(model, prefix) else ""


def is_under(name: str, modules: list[str]) -> bool:
    """Whether `name` is one of `modules` or inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def base_sha256(model: nn.Module, head_modules: list[str]) -> str:
    """Hash of the pretrained weights in `model`: every parameter outside `head_modules`.

    Names are those of the base model itself, whatever head or adapters stand around it.
    """
    prefix = f"{base_prefix(model)}."
    named = []
    for name, parameter in model.named_parameters():
        if ".mask_" in name:
            continue
        name = name.replace(".base_layer.", ".")
        if not is_under(name, head_modules):
            named.append((name.removeprefix(prefix), parameter))
    return weights_sha256(named)
