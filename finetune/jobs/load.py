"""Load what a finished job left: the finetuned model, or what it learned put into its backbone."""

from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, PreTrainedModel

from finetune.adapters import TRAINED, peft_type
from finetune.errors import FinetuneError
from finetune.files import read_json
from finetune.jobs.folder import SETTINGS
from finetune.masks.apply import from_checkpoint, label_fields, load_masked
from finetune.masks.folder import MaskFolder
from finetune.tasks.kinds import KINDS

# The backbone may have another task's head, which the stored one replaces.
ANY_HEAD = {"ignore_mismatched_sizes": True}


def load_model(folder: Path, backbone: str) -> PreTrainedModel:
    """The model of job `folder` in evaluation mode, in fp32; an adapter is merged into `backbone`.

    Raises FinetuneError if the folder has none, or if a mask belongs to other weights.
    """
    method = peft_type(folder)
    if method == "MASK":
        return load_masked(MaskFolder.open(folder), backbone)
    settings = settings_of(folder)
    auto = KINDS[settings.get("kind", "text")].model
    if method is not None:
        if "labels" not in settings:
            raise FinetuneError(
                f"{folder}: no {SETTINGS} beside the adapter, which says what its classes are; "
                "copy it from the folder that `python -m finetune.glue` made."
            )
        base = from_checkpoint(auto, backbone, **ANY_HEAD, **_head_fields(settings))
        return PeftModel.from_pretrained(base, str(folder)).merge_and_unload().eval()
    if (folder / TRAINED).is_file():
        config = AutoConfig.from_pretrained(folder)
        model = from_checkpoint(auto, backbone, config=config, **ANY_HEAD)
        return _with_trained(model, folder / TRAINED, backbone).eval()
    if (folder / "config.json").is_file():
        return from_checkpoint(auto, str(folder)).eval()
    raise FinetuneError(
        f"{folder}: neither a mask (adapter_config.json) nor a model (config.json); "
        "`python -m finetune.glue` writes them."
    )


def _head_fields(settings: dict[str, Any]) -> dict[str, Any]:
    return {} if settings.get("kind") == "choice" else label_fields(settings["labels"])


def _with_trained(model: PreTrainedModel, file: Path, backbone: str) -> PreTrainedModel:
    stored, own = load_file(file), model.state_dict()
    strange = [
        name for name, value in stored.items() if name not in own or own[name].shape != value.shape
    ]
    if strange:
        raise FinetuneError(
            f"{file}: {strange[0]} {list(stored[strange[0]].shape)} doesn't fit {backbone}; it was "
            "learned on another model."
        )
    model.load_state_dict(stored, strict=False)
    return model


def settings_of(folder: Path) -> dict[str, Any]:
    """What `job.json` in `folder` says; nothing where it isn't a job's."""
    path = folder / SETTINGS
    return read_json(path) if path.is_file() else {}
