"""The PEFT method itself: puts masks into a model, trains, saves and loads them."""

import hashlib
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
import torch
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from finetune.errors import FinetuneError
from finetune.masks.architectures import find_blocks
from finetune.masks.binarizers import initial_scores
from finetune.masks.coding import DAMAGED, decode, encode, pack_bits
from finetune.masks.config import MaskConfig
from finetune.masks.identity import (
    base_prefix,
    base_sha256,
    check_outputs,
    is_under,
    task_modules,
)
from finetune.masks.layer import MaskedLinear, gathered
from finetune.masks.targets import check_targets, choose_targets

WRAPPED = "base_model.model."


class MaskModel(BaseTuner):
    """The model with its targets replaced by `MaskedLinear`; PEFT holds it as `base_model`."""

    prefix = "mask_"
    tuner_layer_cls = MaskedLinear

    def __init__(
        self,
        model: PreTrainedModel,
        peft_config: PeftConfig | dict[str, PeftConfig],
        adapter_name: str,
        **fields: Any,
    ) -> None:
        # PeftModel hands over its configs by name. A saved one by itself comes from transformers,
        # which copies tensors under their names, and so would leave all masks empty.
        if isinstance(peft_config, MaskConfig) and peft_config.masks_sha256 is not None:
            raise FinetuneError(
                "transformers can't decode a mask: expected peft's PeftModel.from_pretrained("
                f"model, folder), with the model from {peft_config.base_model_name_or_path}."
            )
        super().__init__(model, peft_config, adapter_name, **fields)

    @contextmanager
    def _enable_peft_forward_hooks(self, *inputs: Any, **fields: Any) -> Iterator[None]:
        """Refuse the one argument of PEFT's forward that masks have no meaning for."""
        if fields.get("adapter_names") is not None:
            raise ValueError(
                "adapter_names: masks don't mix in one batch; choose one with set_adapter, or "
                "answer for several tasks with finetune.serving.resident.Resident."
            )
        yield

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict) -> PeftConfig:
        # What is needed is the model, not its configuration: see _prepare_model.
        return peft_config

    def _prepare_model(  # type: ignore[override]
        self, config: MaskConfig, model: PreTrainedModel
    ) -> None:
        """Check the base's identity and fill in what the config left open."""
        if config.head_modules is None:
            config.head_modules = task_modules(model)
        others: list[Any] = [c for c in self.peft_config.values() if c is not config]
        if any(other.frozen_dtype != config.frozen_dtype for other in others):
            raise FinetuneError(
                f"frozen_dtype: found {config.frozen_dtype}, but the base holds masks learned on "
                f"{others[0].frozen_dtype}; masks on one base have to agree."
            )
        # Once cast, the base no longer shows what it was; whoever came first has looked.
        known = [o.base_sha256 for o in others if o.head_modules == config.head_modules]
        found = known[0] if known else base_sha256(model, config.head_modules)
        if config.base_sha256 not in (None, found):
            raise other_weights(config, found)
        is_new = config.base_sha256 is None
        config.base_sha256 = found
        head = re.fullmatch(r".*For([A-Z]\w+)", type(model).__name__)  # not RoFormer's For
        config.model_class = head[1] if head else None
        check_outputs(config, model)
        if is_new or config.target_modules is None:
            config.target_modules = choose_targets(config, model)
        check_targets(config.target_modules, model)
        if config.frozen_dtype is not None:
            model.to(getattr(torch, config.frozen_dtype))

    def _create_and_replace(  # type: ignore[override]
        self,
        config: MaskConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        layer = target if isinstance(target, MaskedLinear) else MaskedLinear(target)  # type: ignore[arg-type]
        is_head = is_under(current_key, config.head_modules or [])
        is_pooler = "pooler" in current_key.split(".")
        masked = not is_head or config.mask_classifier
        if is_head and is_pooler and is_under(current_key, [base_prefix(self.model)]):
            masked &= config.mask_pooler
        scores = None
        if masked:
            # Only blocks have heads; pooler and head are masked weight by weight in any case.
            single = is_head or is_pooler
            shape = self._score_shape(layer.base_layer, "weight" if single else config.granularity)
            scores = self._first_scores(config, layer.base_layer, shape, current_key)
        layer.add_mask(adapter_name, scores, config.rule, is_head, config.train_classifier)
        layer.set_adapter(self.active_adapters, inference_mode=config.inference_mode)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _score_shape(self, layer: nn.Linear, granularity: str) -> torch.Size:
        if granularity == "weight":
            return layer.weight.shape
        if granularity == "layer":
            return torch.Size([1, 1])
        width = head_width(self.model)
        if layer.out_features % width:
            raise FinetuneError(
                f"granularity: head, but a layer of {layer.out_features} rows has no heads of "
                f"{width}; name others with matrices or target_modules."
            )
        return torch.Size([layer.out_features // width, 1])

    @staticmethod
    def _first_scores(
        config: MaskConfig, layer: nn.Linear, shape: torch.Size, name: str
    ) -> torch.Tensor:
        weight = layer.weight.detach()
        if config.inference_mode or weight.is_meta:
            return torch.zeros(shape)  # the file's bits follow
        digest = hashlib.sha256(f"{config.seed} {name}".encode()).digest()
        return initial_scores(
            config.rule,
            config.init,
            config.init_scale,
            gathered(weight.abs(), shape),
            seed=int.from_bytes(digest[:6], "little"),
        )

    def _post_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        """Have the uppermost blocks computed again in the backward pass, where asked for."""
        assert isinstance(config, MaskConfig)
        if config.recompute_blocks and not config.inference_mode:
            for stem in find_blocks(model).stems:
                for block in model.get_submodule(stem)[-config.recompute_blocks :]:  # type: ignore[index]
                    # Funnel's blocks are lists of layers.
                    for layer in block if isinstance(block, nn.ModuleList) else [block]:
                        recompute(layer)

    @classmethod
    def _get_adapter_state_dict(  # type: ignore[override]
        cls,
        model: nn.Module,
        config: MaskConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        """PEFT's entries with the scores replaced by what they keep; describes them in `config`."""
        entries = super()._get_adapter_state_dict(
            model, config, adapter_name, state_dict, unwanted_adapter_names
        )
        layers = dict(model.named_modules())
        saved = {}
        config.sparsity, config.shapes = {}, {}
        digest = hashlib.sha256()
        for key in sorted(entries):
            name, is_mask, _ = key.partition(".mask_scores.")
            if not is_mask:
                saved[key] = entries[key]
                continue
            mask = layers[name].mask(adapter_name).cpu().numpy()
            plain = name.removeprefix(WRAPPED)
            config.sparsity[plain] = round(1 - float(mask.mean()), 6)
            config.shapes[plain] = list(mask.shape)
            add_to_digest(digest, plain, pack_bits(mask).tobytes())
            if config.stores_scores:
                saved[key] = entries[key]
                continue
            kind, coded = encode(mask, config.encoding)
            saved[key.replace(".mask_scores.", f".mask_{kind}.")] = torch.from_numpy(coded.copy())
        config.masks_sha256 = digest.hexdigest()
        return saved

    @classmethod
    def _remap_adapter_state_dict_for_load(  # type: ignore[override]
        cls,
        model: nn.Module,
        config: MaskConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """The inverse: scores on the right side of the cut, from what the file keeps."""
        scores = {
            f"{name}.mask_scores": layer.mask_scores[adapter_name]
            for name, layer in model.named_modules()
            if isinstance(layer, MaskedLinear) and adapter_name in layer.mask_scores
        }
        loaded, digest, absent = dict(state_dict), hashlib.sha256(), []
        # Both sides are equally near to the cut, so that training can continue from a saved mask.
        low, high = config.rule.cut - config.init_scale / 2, config.rule.cut + config.init_scale / 2
        for key in sorted(scores):
            if key in loaded:
                continue
            plain = key.removeprefix(WRAPPED).removesuffix(".mask_scores")
            stored = key.replace(".mask_scores", ".mask_")
            kind = next((k for k in ("zeros", "ones", "bits") if stored + k in loaded), None)
            if kind is None:
                absent.append(plain)
                continue
            shape = scores[key].shape
            coded = as_bytes(loaded.pop(stored + kind), plain)
            mask = decode(kind, coded, math.prod(shape), plain)
            add_to_digest(digest, plain, pack_bits(mask).tobytes())
            kept = torch.from_numpy(mask).reshape(shape)
            loaded[key] = torch.where(kept, high, low).to(scores[key].device)
        if absent:
            raise FinetuneError(
                f"The mask file lacks {len(absent)} of {len(scores)} masks, first {absent[0]}: "
                "it is damaged, or its adapter_config.json belongs to another file."
            )
        if not config.stores_scores and config.masks_sha256 not in (None, digest.hexdigest()):
            raise other_masks(config, digest.hexdigest())
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, loaded)


def as_bytes(stored: torch.Tensor, name: str) -> np.ndarray:
    """A mask as it is stored; FinetuneError if these aren't bytes."""
    if stored.dtype != torch.uint8:
        raise FinetuneError(f"Mask {name}: found {stored.dtype}, expected torch.uint8. {DAMAGED}")
    return stored.cpu().numpy()


def add_to_digest(digest: Any, name: str, packed: bytes) -> None:
    """One mask of `masks_sha256`: its name, a newline, its packed bits; in the names' order."""
    digest.update(f"{name}\n".encode())
    digest.update(packed)


def other_weights(config: MaskConfig, found: str) -> FinetuneError:
    """The error for a backbone that the mask wasn't learned on."""
    return FinetuneError(
        "This mask belongs to other weights: it was learned on\n"
        f"  {config.base_sha256} ({config.base_model_name_or_path}), but this model has\n"
        f"  {found}. Load the model it names, in the precision it was trained with."
    )


def other_masks(config: MaskConfig, found: str) -> FinetuneError:
    """The error for a tensor file that isn't the one its config describes."""
    return FinetuneError(
        f"adapter_model.safetensors holds other masks than adapter_config.json says: found\n"
        f"  {found}, expected\n  {config.masks_sha256}. One of the two is damaged or of another "
        "mask; copy both again."
    )


def head_width(model: nn.Module) -> int:
    """Rows of one attention head; 1 for a model without attention heads."""
    config: Any = getattr(model, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "head_dim", None)
    return width or (config.hidden_size // heads if heads else 1)


def recompute(block: nn.Module) -> None:
    """Forget the block's activations after its forward pass; the backward makes them again."""
    # A bound method: a deep copy of the model binds it to the copy.
    block.forward = MethodType(_checkpointed, block)


def _checkpointed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


register_peft_method(name="mask", config_cls=MaskConfig, model_cls=MaskModel)
