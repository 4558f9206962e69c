"""The models that `finetune.predict` and `finetune.serve` answer with."""

import argparse
from dataclasses import dataclass
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
from finetune.tasks import TASKS
from finetune.tasks.encode import Backbone

UNKNOWN_LENGTH = 128


def load(args: argparse.Namespace) -> Answerer:
    """The models the command line names (`predict.add_model_flags`), checked and in memory."""
    device = _device(args.device)
    if args.masks:
        _check_masks(args)
        folders = [MaskFolder.open(path) for path in args.masks]
        backbone = load_backbone(args.masks[0], args.model_name_or_path, "--model_name_or_path")
        for folder in folders:
            check_shapes(folder, backbone.name)
        resident = Resident(backbone.name, folders, device)
        trained = {name: Trained.of_mask(task.folder) for name, task in resident.tasks.items()}
        models: Resident | Separate = resident
    elif args.model_name_or_path is None:
        raise FinetuneError("Give --model_name_or_path, or --masks, or both.")
    else:
        backbone, models = _one_model(args.model_name_or_path, args.base_model_name_or_path, device)
        trained = dict.fromkeys(models.models, Trained.of_job(Path(args.model_name_or_path)))
    lengths = [data.max_length for data in trained.values() if data.max_length]
    return Answerer(
        models,
        backbone,
        max_length=args.max_length or max(lengths, default=UNKNOWN_LENGTH),
        batch_size=args.batch_size,
        ensemble=args.ensemble,
        texts={name: data.texts for name, data in trained.items() if data.texts},
    )


@dataclass(frozen=True)
class Trained:
    """What a task was trained on, where its folder says so: tokens of a row, and texts of a row."""

    max_length: int | None
    texts: int | None

    @classmethod
    def of_job(cls, folder: Path) -> "Trained":
        """By its `job.json`; the columns of the table's tasks are known."""
        settings = settings_of(folder)
        length = settings.get("max_seq_length")
        task = TASKS.get(str(settings.get("task")))
        columns = task.inputs if task else settings.get("text_columns")
        texts = len(columns) if isinstance(columns, list | tuple) else None
        return cls(length if isinstance(length, int) else None, texts)

    @classmethod
    def of_mask(cls, folder: MaskFolder) -> "Trained":
        """By its config, or else by the `job.json` beside it."""
        columns, job = folder.config.text_columns, cls.of_job(folder.path)
        texts = len(columns) if columns else job.texts
        return cls(folder.config.max_length or job.max_length, texts)


def _device(name: str | None) -> torch.device:
    """The device of this name, by default the GPU; FinetuneError where there is none."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise FinetuneError(
            f"--device {name}: {reason}. Expected cpu, or cuda on a machine with a GPU."
        ) from None
    return device


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


def _one_model(name: str, base: str | None, device: torch.device) -> tuple[Backbone, Separate]:
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
        dtype = torch.float32 if device.type == "cpu" else "auto"
        model = from_checkpoint(AUTO_CLASSES[kind], name, dtype).eval()
    model.to(device)  # type: ignore[arg-type]
    return backbone, Separate({settings_of(folder).get("task", folder.name): model})
