"""Settings of earlier releases, read from their files: run folders, exports, configs of users."""

from __future__ import annotations

import logging
from typing import Any

from pretrain.errors import PretrainError

logger = logging.getLogger(__name__)

_ARCHITECTURE_OF_NORM = {"post": "roberta", "pre": "roberta-prelayernorm"}
REMOVED = {
    "model.norm": "is now model.architecture: roberta for post, roberta-prelayernorm for pre; set "
    "that instead",
    "model.position_init": "was removed: with model.architecture modernbert small models need no "
    "special start; remove it",
    "model.unigram_bias": "was removed: a head that starts at the token frequencies learns more "
    "slowly; remove it",
    "optimizer.lower_warmup": "was removed: with model.architecture modernbert late [MASK]s learn "
    "without it; remove it",
    "masking.late_positions": "was removed: with model.architecture modernbert all layers are "
    "rotary; remove it",
}
"""What became of keys that are no more."""
ZERO_IN_FORMER_CHECKPOINTS = ("token_type_embeddings.weight",)
"""Parameters that a checkpoint may lack: RoBERTa's only token type was part of its positions."""


def translate(content: Any, where: str) -> bool:
    """Bring the settings read from a file up to date, in place; whether anything changed.

    Args:
        content: the file's mapping of groups.
        where: the file, for messages.

    Raises:
        PretrainError: a model that this release does not compute.
    """
    if not isinstance(content, dict):
        return False
    changed = _translate_norm(content.get("model"), where)
    # These decided how a run began or learned: what is in its checkpoints is the same without.
    for group, key, harmless in (
        ("model", "position_init", "normal"),
        ("model", "unigram_bias", False),
        ("optimizer", "lower_warmup", 0),
    ):
        settings = content.get(group)
        if isinstance(settings, dict) and key in settings:
            value = settings.pop(key)
            changed = True
            if value != harmless:
                logger.warning("%s: %s.%s = %s is ignored; it %s", where, group, key, value,
                               REMOVED[f"{group}.{key}"])  # fmt: skip
    masking = content.get("masking")
    return (isinstance(masking, dict) and translate_masking(masking, where)) or changed


def translate_masking(masking: dict[str, Any], where: str) -> bool:
    """The same for the group `masking` alone, which exports hold."""
    renamed = masking.get("cross_queries") == "holes"
    if renamed:
        masking["cross_queries"] = "masked"
    if "late_positions" not in masking:
        return renamed
    if masking["late_positions"] != "table":
        raise PretrainError(
            f"{where}: masking.late_positions is {masking['late_positions']}; decoder layers with "
            "rotary positions over a position table were given up. Its encoder is in the run's "
            "hf/model.safetensors, which loads as before; for the decoder layers check out commit "
            "0651273 of latemask"
        )
    del masking["late_positions"]
    return True


def _translate_norm(model: Any, where: str) -> bool:
    """model.norm as model.architecture."""
    if not isinstance(model, dict) or "norm" not in model:
        return False
    norm = model.pop("norm")
    if norm not in _ARCHITECTURE_OF_NORM or "architecture" in model:
        raise PretrainError(f"{where}: model.norm {REMOVED['model.norm']}")
    model["architecture"] = _ARCHITECTURE_OF_NORM[norm]
    return True
