"""Which weights a mask belongs to, by their hash and shapes, and which are the task's own."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from finetune.errors import FinetuneError
from finetune.masks.config import MaskConfig

READ_BY_LABEL = ("SequenceClassification", "TokenClassification")


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


def task_modules(model: nn.Module) -> list[str]:
    """Modules of the task's own: all outside the base, and what its checkpoint has no weights for.

    The latter are random, as the pooler of an encoder that was saved as BertForMaskedLM.
    """
    prefix = base_prefix(model)
    outside = [name for name, _ in model.named_children() if prefix and name != prefix]
    inside = {name.rpartition(".")[0] for name in missing_weights(model)}
    return [*outside, *sorted(name for name in inside if not is_under(name, outside))]


def missing_weights(model: nn.Module) -> list[str]:
    """Parameters that the checkpoint named by `model` lacks; none if it can't be found again."""
    name = getattr(model, "name_or_path", "")
    if not name or not isinstance(model, PreTrainedModel):
        return []
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it has been reported when the model was loaded
    try:
        with torch.random.fork_rng(devices=[]):
            # On the meta device only names and shapes are read.
            loaded: Any = type(model).from_pretrained(
                name,
                config=model.config,
                device_map="meta",
                ignore_mismatched_sizes=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (ImportError, OSError, RuntimeError, ValueError):
        return []  # all are taken for the base's, whose hash will tell if they aren't
    finally:
        logging.set_verbosity(verbosity)
    return sorted(loaded[1]["missing_keys"])


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


def check_outputs(config: MaskConfig, model: nn.Module) -> None:
    """FinetuneError unless the model has an output for each label, and its head the mask's shape.

    The outputs of a model for multiple choice are one for each row.
    """
    found = getattr(getattr(model, "config", None), "num_labels", None)
    expected = None if config.labels is None else max(1, len(config.labels))
    if config.model_class in READ_BY_LABEL and expected not in (None, found):
        raise FinetuneError(
            f"labels: found {len(config.labels or [])}, but this model has {found} outputs; name "
            f"as many labels, or load it with num_labels={expected}."
        )
    layers = dict(model.named_modules())
    for name, shape in (config.shapes or {}).items():
        weight = getattr(layers.get(name), "weight", None)
        is_own = is_under(name, config.head_modules or [])
        if is_own and weight is not None and list(weight.shape) != shape:
            raise FinetuneError(
                f"{name}: its mask is {shape}, the weight of this model {list(weight.shape)}; load "
                f"it with num_labels={shape[0]}."
            )
