"""The encoder that a run continues (`run.init_from`): its config, its tokenizer, its weights."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from pretrain.architectures import architecture_of
from pretrain.data import ShardFolder
from pretrain.errors import PretrainError
from pretrain.export import read_model_config, read_tokenizer, read_weights
from pretrain.model import LateMaskModel
from pretrain.recipe import TOKEN_ID_PARTS, ModelConfig

logger = logging.getLogger(__name__)

# Other values of these fit the same weights; those of the first kind compute another thing.
_COMPUTED_OTHERWISE = {
    "global_attn_every_n_layers",
    "local_attention",
    "global_rope_theta",
    "local_rope_theta",
    "layer_norm_eps",
}
_FREE = {"dropout", "initializer_range", "tie_word_embeddings"}
_TOKEN_IDS = {f"{part}_token_id" for part in TOKEN_ID_PARTS}  # the data says them


class Source:
    """A Hugging Face directory: a folder, or what the Hub has under a name."""

    def __init__(self, name: str) -> None:
        """Find it.

        Raises:
            PretrainError: neither a folder nor on the Hub.
        """
        self.name = name
        self.folder = _fetch(name)
        try:
            self.config = read_model_config(self.folder)
        except PretrainError as error:
            raise PretrainError(f"run.init_from: {error}") from None

    def check_tokenizer(self, data: ShardFolder) -> None:
        """See that every token of the source has the same id in the data.

        Raises:
            PretrainError: one has not; the first is named.
        """
        theirs = read_tokenizer(self.folder)
        if theirs is None:
            logger.warning(
                "run.init_from: %s has no tokenizer to compare with that of %s; its rows must mean "
                "the same tokens",
                self.name,
                data.path,
            )
            return
        ours = read_tokenizer(data.path)
        assert ours is not None  # ShardFolder has looked for it
        found = ours.get_vocab()
        expected = sorted(theirs.get_vocab().items(), key=lambda item: item[1])
        for token, index in expected:
            if found.get(token) != index:
                where = f"at id {found[token]}" if token in found else "nowhere"
                raise PretrainError(
                    f"run.init_from: the tokenizer of {self.name} has {token!r} at id {index}, "
                    f"that of the data in {data.path} has it {where}; make the data with the "
                    f"source's tokenizer: tokenizer.path: {self.name} in the pipeline's config"
                )

    @torch.no_grad()
    def start(self, model: LateMaskModel) -> None:
        """Overwrite the weights of an initialised model with the source's.

        What pretraining needs beside the encoder may be missing: late layers and the head keep
        their weights, and a [MASK] vector starts as the row of [MASK] in the word embedding.

        Raises:
            PretrainError: the weights are not what the source's config.json says.
        """
        try:
            weights = read_weights(self.folder, self.config)
        except PretrainError as error:
            raise PretrainError(f"run.init_from: {error}") from None
        words = weights["word_embeddings.weight"]
        weights.setdefault("mask_embedding", words[model.config.token_id("mask")])
        if "head.bias" in weights:
            weights.setdefault("head.decoder", words)
        else:
            logger.warning(
                "run.init_from: %s has no MLM head; it starts from drawn weights", self.name
            )
        for name, parameter in model.named_parameters():
            if name not in weights:
                continue
            if weights[name].shape != parameter.shape:
                raise PretrainError(
                    f"run.init_from: {name} of {self.name} has shape {list(weights[name].shape)}, "
                    f"its config.json makes it {list(parameter.shape)}; the folder is damaged"
                )
            parameter.copy_(weights[name])


def settings_of(model: ModelConfig, theirs: ModelConfig, source: str) -> dict[str, Any]:
    """What is to change in `model` for the encoder of `source`: all that is at its default.

    Raises:
        PretrainError: a value that is not at its default does not fit the source's weights.
    """
    # Some defaults depend on the architecture.
    defaults = {
        **asdict(ModelConfig(architecture=model.architecture)),
        "architecture": ModelConfig().architecture,
    }
    changes: dict[str, Any] = {}
    for name in (field.name for field in fields(ModelConfig) if field.name not in _TOKEN_IDS):
        ours, found = getattr(model, name), getattr(theirs, name)
        if ours == defaults[name]:
            changes[name] = found
        elif ours == found or name in _FREE or _is_limit(name, theirs):
            continue
        elif name in _COMPUTED_OTHERWISE:
            logger.warning("run.init_from: %s has %s %s, this config %s", source, name, found, ours)
        else:
            raise PretrainError(
                f"run.init_from: model.{name} is {ours}, {source} has {found}; leave model.{name} "
                "out"
            )
    return changes


def _is_limit(name: str, theirs: ModelConfig) -> bool:
    """Whether this is a limit of the sequence's length that no weight depends on."""
    return name == "max_position_embeddings" and not architecture_of(theirs).has_position_table


def _fetch(source: str) -> Path:
    """`source` itself if it is a folder, else the copy of what the Hub has under this name."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.startswith(("/", ".", "~")):
        raise PretrainError(f"run.init_from: there is no folder {folder}")
    small = ["*.json", "*.txt", "*.model"]
    try:
        folder = Path(snapshot_download(source, allow_patterns=[*small, "model*.safetensors"]))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(source, allow_patterns=[*small, "pytorch_*.bin"]))
    except (OSError, HFValidationError, HfHubHTTPError) as error:
        text = " ".join(str(error).split())
        raise PretrainError(
            f"run.init_from: {source} is not a folder, and the Hub does not give it: {text}"
        ) from None
    return folder
