"""A checkpoint as a Hugging Face directory that stock transformers loads, and back (contract B).

`model.safetensors` holds the encoder; the stock `lm_head` is in it only for k = 0 and d = 0, where
the stock forward pass is what was trained. Everything else that pretraining learned (late layers,
mask vector, head) lies beside it in `late_mask.safetensors`, under our names.

    python -m pretrain.export runs/NAME[/checkpoints/step-N] OUT
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pretrain.distribution import answer_version

if __name__ == "__main__":
    answer_version(sys.argv[1:])  # before the seconds of imports below

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from pretrain.architectures import architecture_of, architecture_of_stock
from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.earlier_releases import translate_masking
from pretrain.errors import PretrainError, exit_with
from pretrain.fault_tolerance.checkpoint import Checkpoint
from pretrain.fault_tolerance.run_folder import open_checkpoint
from pretrain.manifest import TOKENIZER_FILES
from pretrain.model import LateMaskModel
from pretrain.model_card import model_card
from pretrain.recipe import TOKEN_ID_PARTS, MaskingConfig, ModelConfig

logger = logging.getLogger(__name__)

LATE_MASK_FILE = "late_mask.safetensors"
_VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")
_LATE_MASK_WEIGHTS = ("late_layers.", "late_norm.", "mask_embedding", "mask_scale", "head.")


def export(source: Path, folder: Path, *, replace_existing: bool = False) -> None:
    """Write `folder` from a run folder's newest checkpoint, or from one `step-*` folder.

    Raises:
        PretrainError: no complete checkpoint, or `folder` exists already.
    """
    refuse_existing(folder, replace_existing)
    checkpoint = open_checkpoint(source)
    write_folder(checkpoint.weights(), checkpoint, folder, replace_existing=replace_existing)


def write_folder(
    weights: dict[str, Tensor],
    checkpoint: Checkpoint,
    folder: Path,
    *,
    replace_existing: bool = False,
    averaged_steps: Sequence[int] = (),
) -> None:
    """Write `folder` from full weights: those of `checkpoint`, or a mean that ends with it.

    Args:
        weights: fp32, by parameter name.
        checkpoint: of whose run and step the rest of the folder tells.
        folder: to be written, complete or not at all.
        replace_existing: an older one may be there.
        averaged_steps: of the checkpoints whose mean `weights` are.

    Raises:
        PretrainError: `folder` exists already.
    """
    refuse_existing(folder, replace_existing)
    config = load_config(checkpoint.run_folder / "config.yaml")
    data = ShardFolder.from_config(config.data)
    # What the run's last stage left: the one in which the [MASK]s entered last.
    masking = checkpoint.last_masking(config.masking, config.budget)

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    disable_progress_bar()  # of a file that takes no time
    _stock_model(weights, config.model, masking).save_pretrained(partial)
    save_file(
        {n: t for n, t in weights.items() if n.startswith(_LATE_MASK_WEIGHTS)},
        partial / LATE_MASK_FILE,
        metadata={
            "format": "pt",
            "masking": json.dumps(asdict(masking)),
            "token_ids": json.dumps(
                {f"{part}_token_id": config.model.token_id(part) for part in TOKEN_ID_PARTS}
            ),
            "step": str(checkpoint.progress.step),
        },
    )
    for name in TOKENIZER_FILES:
        if (data.path / name).exists():
            shutil.copy(data.path / name, partial / name)
    card = model_card(config, data, checkpoint, folder.name, averaged_steps)
    (partial / "README.md").write_text(card)
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
        partial.replace(folder)
        shutil.rmtree(old)
    else:
        partial.replace(folder)


def refuse_existing(folder: Path, replace_existing: bool = False) -> None:
    """Raise PretrainError where `folder` exists and may not be replaced."""
    if folder.exists() and not replace_existing:
        raise PretrainError(f"{folder} exists; choose another folder, or remove it first")


def exported_step(folder: Path) -> int | None:
    """The step of the checkpoint that `folder` was exported from; None where it doesn't say."""
    file = folder / LATE_MASK_FILE
    if not file.is_file() or not (folder / "model.safetensors").is_file():
        return None
    step = _metadata(file).get("step")
    return None if step is None else int(step)


def _stock_model(
    weights: dict[str, Tensor], config: ModelConfig, masking: MaskingConfig
) -> PreTrainedModel:
    """A stock model with our weights: with its head where the stock forward pass was trained."""
    architecture = architecture_of(config)
    stock_config = architecture.to_stock_config(config)
    if masking.insertion_layer > 0 or masking.late_layers > 0:
        encoder = architecture.make_stock_encoder(stock_config)
        encoder.load_state_dict(architecture.to_stock_weights(weights, config))
        return encoder
    if masking.mask_embedding == "separate":
        # The stock input for a [MASK] is the row of <mask>, which is never a label.
        table = weights["word_embeddings.weight"].clone()
        table[config.token_id("mask")] = weights["mask_embedding"]
        weights = weights | {"word_embeddings.weight": table}
    model = architecture.make_stock_masked_lm(stock_config)
    state = architecture.to_stock_weights(weights, config)
    model.load_state_dict(
        {architecture.prefix + name: tensor for name, tensor in state.items()}
        | architecture.to_stock_head(weights, config)
    )
    return model


def load(folder: Path) -> LateMaskModel:
    """Our model from a directory that `export` wrote, or from a stock model in a local folder.

    A stock model comes back as vanilla masked LM (k = 0), for filling masks.

    Raises:
        PretrainError: no such folder, another architecture, or no head to fill masks with.
    """
    config = read_model_config(folder)
    weights = read_weights(folder, config)
    late = folder / LATE_MASK_FILE
    masking = MaskingConfig(mask_embedding="shared")
    if late.is_file():
        settings = json.loads(_metadata(late)["masking"])
        translate_masking(settings, str(late))
        masking = MaskingConfig(**settings)
    if "head.bias" not in weights:
        raise PretrainError(
            f"{folder} has neither an MLM head nor {LATE_MASK_FILE}: it can't predict tokens"
        )
    model = LateMaskModel(config, masking)
    if model.architecture.scales_masks:
        weights.setdefault("mask_scale", torch.ones(config.hidden_size))
    with torch.no_grad():
        model.load_state_dict(weights)
    return model


def read_model_config(folder: Path) -> ModelConfig:
    """What config.json and the tokenizer of a Hugging Face directory say of the model.

    Raises:
        PretrainError: no such folder, another architecture, or a tokenizer that can't be read.
    """
    if not (folder / "config.json").is_file():
        raise PretrainError(f"{folder}/config.json is missing: not a Hugging Face directory")
    try:
        stock_config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise PretrainError(f"{folder}/config.json can't be read: {text:.200}") from None
    config = architecture_of_stock(stock_config.model_type).from_stock_config(stock_config)
    late = folder / LATE_MASK_FILE
    if late.is_file():
        ids = json.loads(_metadata(late).get("token_ids", "{}"))
    else:
        tokenizer = read_tokenizer(folder)
        ids = {} if tokenizer is None else _token_ids(tokenizer)
    return replace(config, **ids)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in a Hugging Face directory, as transformers makes it; None where there is
    none.

    Raises:
        PretrainError: it can't be read.
    """
    # Without a file some classes would make up a vocabulary.
    if not any((folder / name).is_file() for name in _VOCABULARY_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers and tokenizers raise nothing narrower
        text = " ".join(str(error).split())
        raise PretrainError(f"{folder}: its tokenizer can't be read: {text:.300}") from None


def read_weights(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """All weights of a Hugging Face directory under our names, what was not exported included.

    Raises:
        PretrainError: there are none, or one is missing.
    """
    architecture = architecture_of(config)
    weights = architecture.from_stock_weights(_read_stock_weights(folder), config)
    late = folder / LATE_MASK_FILE
    return weights | load_file(late) if late.is_file() else weights


def _metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as content:
        return content.metadata() or {}


def _token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    found = {
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "mask_token_id": tokenizer.mask_token_id,
    }
    return {key: index for key, index in found.items() if index is not None}


def _read_stock_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a Hugging Face directory: one file or shards, safetensors or pickled."""
    for name, read in (("model.safetensors", load_file), ("pytorch_model.bin", _load_pickle)):
        index = folder / f"{name}.index.json"
        try:
            if (folder / name).is_file():
                return read(folder / name)
            if index.is_file():
                shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
                return {k: v for shard in shards for k, v in read(folder / shard).items()}
        except Exception as error:  # torch's and safetensors' readers raise nothing narrower
            text = " ".join(str(error).split())
            raise PretrainError(
                f"{folder}: {name} can't be read, it is cut off or damaged ({text:.200}); fetch it "
                "again"
            ) from None
    raise PretrainError(
        f"{folder} holds no weights: model.safetensors or pytorch_model.bin, or an index of shards"
    )


def _load_pickle(file: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return found


def main(argv: Sequence[str]) -> None:
    """Export one checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.export", description=__doc__)
    parser.add_argument("source", type=Path, help="run folder, or one of its checkpoints")
    parser.add_argument("folder", type=Path, help="new folder to write")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, force=True)
    try:
        export(args.source, args.folder)
    except PretrainError as error:
        exit_with(error)
    print(f"wrote {args.folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
