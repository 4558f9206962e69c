"""An exported directory as a masked LM of transformers, its [MASK]s entering where they did before.

The stock `AutoModelForMaskedLM` takes `hf/` for a plain encoder, which never saw a [MASK] in its
early layers. Importing this module registers the model type "latemask":

    from pretrain.auto import LateMaskConfig
    config = LateMaskConfig.from_pretrained("runs/NAME/hf")
    model = AutoModelForMaskedLM.from_pretrained("runs/NAME/hf", config=config)
    pipeline("fill-mask", model, tokenizer="runs/NAME/hf")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from pretrain.errors import PretrainError
from pretrain.export import load
from pretrain.model import LateMaskModel


class LateMaskConfig(PreTrainedConfig):
    """The stock config under our model type; the recipe comes with the weights."""

    model_type = "latemask"

    @classmethod
    def get_config_dict(cls, *arguments: Any, **keywords: Any) -> tuple[dict[str, Any], Any]:
        """As the stock one; what the file says of its type is meant for stock classes."""
        settings, rest = super().get_config_dict(*arguments, **keywords)
        return {**settings, "model_type": cls.model_type}, rest


class LateMaskForMaskedLM(PreTrainedModel):
    """Stock inputs and outputs around `LateMaskModel`, for inference."""

    config_class = LateMaskConfig
    base_model_prefix = "model"

    def __init__(self, config: LateMaskConfig, model: LateMaskModel) -> None:
        super().__init__(config)
        self.model = model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, *_: Any, **keywords: Any
    ) -> LateMaskForMaskedLM:
        """From a local directory that we exported, or a stock model's; PretrainError otherwise."""
        folder = Path(pretrained_model_name_or_path)
        model = load(folder)
        return cls(keywords.get("config") or LateMaskConfig.from_pretrained(folder), model).eval()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """[B, T] ids, <mask>s among them -> logits [B, T, V], in reading order.

        Sequences run one by one: each has its own number of <mask>s. `labels` as in transformers,
        -100 where nothing is asked.
        """
        mask_id = self.model.config.token_id("mask")
        longest = self.model.architecture.longest_sequence(self.model.config)
        if input_ids.shape[1] > longest:
            raise PretrainError(
                f"{input_ids.shape[1]} tokens in a sequence; {longest} are possible"
            )
        self.model.sequence_length = input_ids.shape[1]
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        logits = torch.zeros(
            *input_ids.shape, self.model.config.known_vocab_size, device=input_ids.device
        )
        for row, (ids, kept) in enumerate(zip(input_ids, attention_mask.bool(), strict=True)):
            ids = ids[kept]
            positions = torch.arange(len(ids), device=ids.device)
            is_masked = ids == mask_id
            order = torch.cat([positions[~is_masked], positions[is_masked]])
            found = self.model.logits(ids[~is_masked][None], order[None], len(ids))[0]
            logits[row, kept] = found[order.argsort()].float()
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return MaskedLMOutput(loss=loss, logits=logits)


AutoConfig.register(LateMaskConfig.model_type, LateMaskConfig, exist_ok=True)
AutoModelForMaskedLM.register(LateMaskConfig, LateMaskForMaskedLM, exist_ok=True)
