"""Binary masks over frozen weights as a PEFT method (methods §2, contract C).

Importing this module registers the method "mask", after which PEFT's own functions work:
`get_peft_model(model, MaskConfig())`, `save_pretrained`, `PeftModel.from_pretrained(base, folder)`,
`merge_and_unload()`, `disable_adapter()`. What is saved is bits (`maskfile.py`), not scores.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType, register_peft_method
from torch import nn
from transformers import PreTrainedModel

from finetune.architectures import MATRICES, default_blocks, find_architecture
from finetune.errors import FinetuneError
from finetune.mask_layer import MaskedLinear, initial_scores
from finetune.maskfile import pack, unpack, weights_sha256


@dataclass
class MaskConfig(PeftConfig):
    """What is masked and how. The fields after `seed` are filled in; they describe a saved mask.

    `target_modules` (a list of names or suffixes, or a regular expression, as in PEFT) overrides
    `blocks`, `matrices`, `mask_pooler` and `mask_classifier`.
    """

    target_modules: list[str] | str | None = None
    blocks: list[int] | None = field(default=None, metadata={"help": "default: see architectures"})
    matrices: list[str] = field(default_factory=lambda: list(MATRICES))
    mask_pooler: bool = True
    mask_classifier: bool = True
    train_classifier: bool = field(
        default=False, metadata={"help": "train the head's weights instead of masking them"}
    )
    initial_sparsity: float = field(default=0.05, metadata={"help": "p0, share of zeros at start"})
    threshold: float = field(
        default=0.01, metadata={"help": "τ: a score above it keeps its weight"}
    )
    init_scale: float = field(default=0.02, metadata={"help": "c, see methods §2.1"})
    seed: int = field(default=0, metadata={"help": "of the initial scores, equal for every task"})
    head_modules: list[str] | None = field(
        default=None,
        metadata={"help": "random modules, saved whole; default: all outside the base"},
    )
    task: str | None = None
    labels: list[str] | None = None
    base_sha256: str | None = None
    sparsity: dict[str, float] | None = field(default=None, metadata={"help": "of each mask"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType("MASK")
        unknown = [name for name in self.matrices if name not in MATRICES]
        if unknown:
            raise FinetuneError(f"matrices: found {unknown}, expected some of {list(MATRICES)}.")
        if not 0 < self.initial_sparsity < 1:
            raise FinetuneError(
                f"initial_sparsity: found {self.initial_sparsity}, expected between 0 and 1."
            )
        if self.train_classifier:
            self.mask_classifier = False


class MaskModel(BaseTuner):
    """The model with its targets replaced by `MaskedLinear`; PEFT holds it as `base_model`."""

    prefix = "mask_"
    tuner_layer_cls = MaskedLinear

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict) -> PeftConfig:
        # What is needed is the model, not its configuration: see _prepare_model.
        return peft_config

    def _prepare_model(  # type: ignore[override]
        self, config: MaskConfig, model: PreTrainedModel
    ) -> None:
        """Check the base's identity and fill in what the config left open."""
        if config.head_modules is None:
            config.head_modules = [
                name for name, _ in model.named_children() if name != _base_prefix(model)
            ]
        found = base_sha256(model, config.head_modules)
        if config.base_sha256 not in (None, found):
            raise FinetuneError(
                "This mask belongs to other weights: it was learned on\n"
                f"  {config.base_sha256} ({config.base_model_name_or_path}), but this model has\n"
                f"  {found}. Load the model it names, in the precision it was trained with."
            )
        config.base_sha256 = found
        if config.target_modules is None:
            config.target_modules = _default_targets(config, model)
        for name, module in _targets(config, model):
            if not isinstance(module, nn.Linear | MaskedLinear):
                raise FinetuneError(
                    f"target_modules: {name} is a {type(module).__name__}, expected a Linear."
                )

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
        is_head = _is_under(current_key, config.head_modules or [])
        scores = None
        if not (is_head and config.train_classifier):
            digest = hashlib.sha256(f"{config.seed} {current_key}".encode()).digest()
            scores = initial_scores(
                layer.base_layer.weight.shape,
                config.threshold,
                config.init_scale,
                config.initial_sparsity,
                seed=int.from_bytes(digest[:6], "little"),
            )
        layer.add_mask(adapter_name, scores, config.threshold, is_head, config.train_classifier)
        layer.set_adapter(self.active_adapters, inference_mode=config.inference_mode)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    @classmethod
    def _get_adapter_state_dict(  # type: ignore[override]
        cls,
        model: nn.Module,
        config: MaskConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        entries = super()._get_adapter_state_dict(
            model, config, adapter_name, state_dict, unwanted_adapter_names
        )
        saved, config.sparsity = {}, {}
        for key in sorted(entries):
            if ".mask_scores." not in key:
                saved[key] = entries[key]
                continue
            kept = entries[key] > config.threshold
            name = key.removeprefix("base_model.model.").partition(".mask_scores.")[0]
            config.sparsity[name] = round(1 - kept.float().mean().item(), 6)
            saved[key.replace(".mask_scores.", ".mask_bits.")] = pack(kept)
        return saved

    @classmethod
    def _remap_adapter_state_dict_for_load(  # type: ignore[override]
        cls,
        model: nn.Module,
        config: MaskConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        shapes = {
            f"{name}.mask_scores": layer.mask_scores[adapter_name].shape
            for name, layer in model.named_modules()
            if isinstance(layer, MaskedLinear) and adapter_name in layer.mask_scores
        }
        renamed = {
            key.replace(".mask_bits", ".mask_scores"): value for key, value in state_dict.items()
        }
        absent = sorted(set(shapes) - set(renamed))
        if absent:
            raise FinetuneError(
                f"The mask file lacks {len(absent)} of {len(shapes)} masks, first {absent[0]}: "
                "it is damaged, or its adapter_config.json belongs to another file."
            )
        for key, shape in shapes.items():
            # Any score above the threshold will do; 2τ and 0 leave both sides equally near to it.
            kept = unpack(renamed[key], shape, key)
            renamed[key] = kept.float() * (2 * config.threshold)
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, renamed)


def _base_prefix(model: nn.Module) -> str:
    return getattr(model, "base_model_prefix", "")


def _is_under(name: str, modules: list[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def base_sha256(model: nn.Module, head_modules: list[str]) -> str:
    """Hash of the pretrained weights in `model`: every parameter outside `head_modules`.

    Names are those of the base model itself, whatever head or adapters stand around it.
    """
    prefix = f"{_base_prefix(model)}."
    named = []
    for name, parameter in model.named_parameters():
        if ".mask_" in name:
            continue
        name = name.replace(".base_layer.", ".")
        if not _is_under(name, head_modules):
            named.append((name.removeprefix(prefix), parameter))
    return weights_sha256(named)


def _default_targets(config: MaskConfig, model: PreTrainedModel) -> str:
    """Regular expression of the modules that `blocks`, `matrices`, ... choose; all must exist."""
    names = find_architecture(model.config.model_type)
    prefix = _base_prefix(model)
    depth = len(model.get_submodule(f"{prefix}.{names.block}"))  # type: ignore[arg-type]
    if config.blocks is None:
        config.blocks = default_blocks(depth)
    outside = [block for block in config.blocks if not 0 <= block < depth]
    if outside:
        raise FinetuneError(f"blocks: found {outside}; this encoder has 0 to {depth - 1}.")
    inner = [names.matrices[MATRICES.index(matrix)] for matrix in config.matrices]
    single = [f"{prefix}.{name}" for name in names.pooler] if config.mask_pooler else []
    if config.mask_classifier or config.train_classifier:
        single += names.classifier
    modules = dict(model.named_modules())
    blocks = [f"{prefix}.{names.block}.{block}" for block in config.blocks]
    targets = [f"{block}.{name}" for block in blocks for name in inner] + single
    absent = [name for name in targets if name not in modules]
    if absent:
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        raise FinetuneError(f"No module {', '.join(absent)}; there are: {', '.join(linear)}.")
    grouped = rf"{prefix}\.{re.escape(names.block)}\.({'|'.join(map(str, config.blocks))})\."
    grouped += f"({'|'.join(map(re.escape, inner))})"
    return "|".join([grouped, *map(re.escape, single)])


def _targets(config: MaskConfig, model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that `target_modules` matches; each name in a list must match at least one."""
    modules = [(name, module) for name, module in model.named_modules() if name]
    # Adapters that are there already are targets themselves, not the layers inside them.
    modules = [pair for pair in modules if ".base_layer" not in pair[0]]
    wanted = config.target_modules
    patterns = (
        [wanted] if isinstance(wanted, str) else [rf"(.*\.)?{re.escape(w)}" for w in wanted or ()]
    )
    targets: dict[str, nn.Module] = {}
    for pattern in patterns:
        matches = {name: module for name, module in modules if re.fullmatch(pattern, name)}
        if not matches:
            linear = [name for name, module in modules if isinstance(module, nn.Linear)]
            raise FinetuneError(
                f"target_modules: {pattern} matches nothing; there are: {', '.join(linear)}."
            )
        targets |= matches
    return list(targets.items())


def _register() -> None:
    """Add "mask" to PEFT. `register_peft_method` wants a member of the closed enum PeftType first;
    PEFT offers no other door, so this is the one place that reaches into it.
    """
    member: Any = str.__new__(PeftType, "MASK")
    member._name_ = member._value_ = "MASK"
    type.__setattr__(PeftType, "MASK", member)
    PeftType._member_names_.append("MASK")
    PeftType._member_map_["MASK"] = member
    PeftType._value2member_map_["MASK"] = member
    register_peft_method(name="mask", config_cls=MaskConfig, model_cls=MaskModel)


if "MASK" not in PeftType.__members__:
    _register()
