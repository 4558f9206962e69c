"""The repeated blocks of a transformer and what each of their linear layers is for.

Both are found from the model itself. Paper and flags speak of six matrices: Q, K, V, AO (attention
output), I (intermediate) and O (output); which layer is which is told by the names in ROLES.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from finetune.choices import MATRICES
from finetune.errors import FinetuneError
from finetune.masks.identity import base_prefix

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]

# Ends of a layer's name within its block; of several that fit the longest decides. A fused matrix
# has several roles; of a gated MLP gate and up projection are both I.
ROLES: dict[str, tuple[str, ...]] = {
    "Q": (
        "self.query",  # BERT and its many relatives, RoFormer, ESM, ConvBERT, Longformer
        "attention.query",  # ALBERT
        "self_attention.query",  # Reformer
        "query_proj",  # DeBERTa-v2 and v3
        "q_lin",  # DistilBERT, XLM
        "q_proj",  # EuroBERT and most decoders
        "attn.q",  # MPNet
        "q_head",  # Funnel
        "Wq",  # CTRL
    ),
    "K": (
        *("self.key", "attention.key", "self_attention.key", "key_proj", "k_lin", "k_proj"),
        *("attn.k", "k_head", "Wk"),
    ),
    "V": (
        *("self.value", "attention.value", "self_attention.value", "value_proj", "v_lin"),
        *("v_proj", "attn.v", "v_head", "Wv"),
    ),
    "QKV": (
        "Wqkv",  # ModernBERT
        "self.in_proj",  # DeBERTa
        "qkv_proj",  # Phi-3
        "query_key_value",  # GPT-NeoX, Bloom, Falcon
        "c_attn",  # GPT-2
    ),
    "AO": (
        "attention.output.dense",
        "attention.dense",  # ALBERT, GPT-NeoX
        "self_attention.dense",  # Bloom, Falcon
        "multi_head_attention.dense",
        "out_lin",
        "o_proj",
        "self_attn.out_proj",  # OPT, BioGPT
        "attn.o",
        "attn.Wo",
        "post_proj",
    ),
    "I": (
        "intermediate.dense",
        "ffn",
        "lin1",
        "gate_proj",
        "up_proj",
        "gate_up_proj",
        "fc1",
        "mlp.Wi",
        "linear_1",
        "dense_h_to_4h",
    ),
    "O": (
        *("output.dense", "ffn_output", "lin2", "down_proj", "fc2", "mlp.Wo"),
        *("linear_2", "dense_4h_to_h"),
    ),
}
_ROLE_OF = {end: role for role, ends in ROLES.items() for end in ends}


def role_of(name: str) -> str:
    """The role of a linear layer from its name within a block: Q, …, QKV; "" if it can't be told.

    The longest known end of the name decides: `attention.output.dense` is AO, not O.
    """
    parts = name.split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    return next((_ROLE_OF[end] for end in ends if end in _ROLE_OF), "")


@dataclass(frozen=True)
class Blocks:
    """The linear layers of the repeated blocks.

    `stems` are the names of the block lists in the model (XLM keeps attentions and MLPs in two of
    equal length); `roles` has each layer's name, its block's number replaced by `{}`.
    """

    stems: tuple[str, ...]
    depth: int
    roles: dict[str, str]

    def pattern(self, blocks: Sequence[int], templates: Sequence[str]) -> str:
        """Regular expression of `templates` in `blocks`."""
        inner: dict[str, list[str]] = {}
        for template in templates:
            stem, _, name = template.partition(".{}.")
            inner.setdefault(stem, []).append(re.escape(name))
        numbers = "|".join(map(str, blocks))
        return "|".join(
            rf"{re.escape(stem)}\.({numbers})\.({'|'.join(names)})" for stem, names in inner.items()
        )

    def chosen(self, matrices: Sequence[str]) -> list[str]:
        """Templates of the layers with one of the roles `matrices`; of all layers for all six.

        FinetuneError if the model has no such layer, or has a role only fused with others.
        """
        if set(matrices) == set(MATRICES):
            return list(self.roles)
        known = sorted({matrix for role in self.roles.values() for matrix in split_role(role)})
        absent = [matrix for matrix in matrices if matrix not in known]
        if absent:
            raise FinetuneError(
                f"matrices: found {', '.join(absent)}, but of this model only "
                f"{', '.join(known) or 'none'} can be told by name; choose layers with "
                f"target_modules, some of {', '.join(self.roles)}."
            )
        chosen = []
        for template, role in self.roles.items():
            parts = split_role(role)
            if not set(parts) & set(matrices):
                continue
            if not set(parts) <= set(matrices):
                raise FinetuneError(
                    f"matrices: found {list(matrices)}, but this encoder keeps {', '.join(parts)} "
                    f"in one, {template.partition('.{}.')[2]}: name all of them or none."
                )
            chosen.append(template)
        return chosen

    def place(self, name: str) -> tuple[int, str] | None:
        """Block and role of the layer `name`; None for a layer outside the blocks."""
        for stem in self.stems:
            found = re.fullmatch(rf"{re.escape(stem)}\.(\d+)\.(.+)", name)
            if found:
                return int(found[1]), self.roles.get(f"{stem}.{{}}.{found[2]}", "")
        return None


def split_role(role: str) -> list[str]:
    """The matrices that a layer holds: three of the role QKV, none of an unknown role."""
    return list(role) if role == "QKV" else [role] if role else []


def plain_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Named modules; where an adapter is already, the linear layer inside it under its old name."""
    modules = []
    for name, module in model.named_modules():
        if not name or ".base_layer" in name or ".mask_" in name:
            continue
        modules.append((name, getattr(module, "base_layer", module)))
    return modules


def linear_names(model: nn.Module, kinds: Kinds = nn.Linear) -> list[str]:
    """Names of all layers of these classes."""
    return [name for name, module in plain_modules(model) if isinstance(module, kinds)]


def find_blocks(model: nn.Module, kinds: Kinds = nn.Linear) -> Blocks:
    """The longest `nn.ModuleList` of the base that holds linear layers; several, if equally long.

    ALBERT's one shared block is one block. FinetuneError for a model without such a list.
    """
    prefix = base_prefix(model)
    lists = {name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    found: dict[str, list[tuple[int, str]]] = {}
    for name in linear_names(model, kinds):
        stem, number, inner = _outermost(name)
        if stem in lists and (not prefix or stem.startswith(f"{prefix}.")):
            found.setdefault(stem, []).append((number, inner))
    if not found:
        raise FinetuneError(
            "target_modules: found no list of blocks of nn.Linear layers; name layers, some of "
            f"{', '.join(linear_names(model, kinds)) or 'which this model has none'}."
        )
    depths = {stem: 1 + max(number for number, _ in layers) for stem, layers in found.items()}
    depth = max(depths.values())
    stems = tuple(stem for stem in found if depths[stem] == depth)
    roles = {f"{stem}.{{}}.{inner}": role_of(inner) for stem in stems for _, inner in found[stem]}
    return Blocks(stems, depth, roles)


def _outermost(name: str) -> tuple[str, int, str]:
    """`encoder.layer.3.output.dense` → (`encoder.layer`, 3, `output.dense`)."""
    found = re.match(r"(.+?)\.(\d+)\.(.+)", name)
    return (found[1], int(found[2]), found[3]) if found else ("", 0, "")


def default_blocks(depth: int) -> list[int]:
    """Blocks masked by default: the paper's 2..11 of 12, 2..5 of 6; all of a shallower encoder.

    The lowest two blocks carry what all tasks share; an encoder of fewer than six has none to
    spare.
    """
    return list(range(2 if depth >= 6 else 0, depth))


def chosen_blocks(blocks: Sequence[int | str] | str | None, depth: int) -> list[int]:
    """Indices from numbers, `"top:N"` (the uppermost N) or `"bottom:N"`; None: the default.

    `top:0` is none: only what stands around the blocks is masked then.
    """
    if blocks is None:
        return default_blocks(depth)
    words = [blocks] if isinstance(blocks, str) else list(map(str, blocks))
    wrong = FinetuneError(
        f"blocks: found [{', '.join(words)}]; this encoder has 0 to {depth - 1}. Name "
        f"some of these, top:N or bottom:N (N from 0 to {depth})."
    )
    if len(words) == 1 and words[0].startswith(("top:", "bottom:")):
        side, _, number = words[0].partition(":")
        if not number.isdigit() or int(number) > depth:
            raise wrong
        count = int(number)
        return list(range(count) if side == "bottom" else range(depth - count, depth))
    if not all(word.isdigit() and int(word) < depth for word in words):
        raise wrong
    return sorted({int(word) for word in words})
