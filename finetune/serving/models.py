"""The models that `finetune.predict` and `finetune.serve` answer with."""

import argparse
from pathlib import Path

import torch
from transformers import AutoConfig

from finetune.adapters import is_part, load_backbone, peft_type
from finetune.errors import FinetuneError
from finetune.jobs.load import load_model, settings_of
from finetune.masks.apply import check_shapes, from_checkpoint
from finetune.masks.folder import MaskFolder
from finetune.serving.answers import AUTO_CLASSES, Answerer, Separate
from finetune.serving.resident import Resident
from finetune.tasks.encode import Backbone


def load(args: argparse.Namespace) -> Answerer:
    """The models the command line names (`predict.add_model_flags`), checked and in memory."""
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.masks:
        _check_masks(args)
        folders = [MaskFolder.open(path) for path in args.masks]
        backbone = load_backbone(args.masks[0], args.model_name_or_path, "--model_name_or_path")
        for folder in folders:
            check_shapes(folder, backbone.name)
        models: Resident | Separate = Resident(backbone.name, folders, device)
    elif args.model_name_or_path is None:
        raise FinetuneError("Give --model_name_or_path, or --masks, or both.")
    else:
        backbone, models = _one_model(args.model_name_or_path, args.base_model_name_or_path, device)
    return Answerer(models, backbone, args.max_length, args.batch_size, args.ensemble)


def _check_masks(args: argparse.Namespace) -> None:
    for path in args.masks:
        if path.is_file():
            raise FinetuneError(
                f"--masks: {path}: a file, expected a folder. Name input files first."
            )
        if is_part(path) and peft_type(path) != "MASK":
            raise FinetuneError(
                f"--masks {path}: found a {peft_type(path) or 'BitFit or probe'} folder, expected "
                "masks; give it as --model_name_or_path."
            )
    if args.base_model_name_or_path is not None:
        raise FinetuneError(
            f"--base_model_name_or_path {args.base_model_name_or_path}: with --masks, the backbone "
            "is --model_name_or_path."
        )


def _one_model(name: str, base: str | None, device: str) -> tuple[Backbone, Separate]:
    """The finetuned model `name`, or what its folder holds merged into its backbone."""
    folder = Path(name)
    if base is not None and not is_part(folder):
        raise FinetuneError(
            f"--base_model_name_or_path {base}: {name} is no LoRA, BitFit or probe folder, which "
            "would need one. The backbone of --masks is --model_name_or_path."
        )
    if is_part(folder):
        backbone = load_backbone(folder, base, "--base_model_name_or_path")
        model = load_model(folder, backbone.name)
    else:
        backbone = Backbone.load(name)
        made_for = (AutoConfig.from_pretrained(name).architectures or ["nothing"])[0]
        kind = made_for.rpartition("For")[2]
        if kind not in AUTO_CLASSES:
            raise FinetuneError(
                f"{name}: a {made_for}, expected a finetuned model. For a mask, name its folder "
                "with --masks and the backbone with --model_name_or_path."
            )
        # Processors compute in half precision slowly, or not at all.
        dtype = torch.float32 if device == "cpu" else "auto"
        model = from_checkpoint(AUTO_CLASSES[kind], name, dtype).eval()
    model.to(device)  # type: ignore[arg-type]
    return backbone, Separate({settings_of(folder).get("task", folder.name): model})
