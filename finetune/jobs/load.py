"""Load what a finished job left: the finetuned model, or what it learned put into its backbone."""

import json
from pathlib import Path

from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, PreTrainedModel

from finetune.errors import FinetuneError
from finetune.jobs.methods import TRAINED
from finetune.masks.apply import from_checkpoint, load_masked
from finetune.masks.folder import MaskFolder
from finetune.tasks.kinds import KINDS

# The backbone may have another task's head, which the stored one replaces.
ANY_HEAD = {"ignore_mismatched_sizes": True}


def load_model(folder: Path, backbone: str) -> PreTrainedModel:
    """The model of job `folder` in evaluation mode; an adapter is merged into `backbone`.

    Raises FinetuneError if the folder has none, or if a mask belongs to other weights.
    """
    auto = KINDS[_kind(folder)].model
    if (folder / "adapter_config.json").is_file():
        if PeftConfig.from_pretrained(str(folder)).peft_type == "MASK":
            return load_masked(MaskFolder.open(folder), backbone)
        fields = ANY_HEAD | {"num_labels": max(1, len(_labels(folder)))}
        base = from_checkpoint(auto, backbone, **fields)
        return PeftModel.from_pretrained(base, str(folder)).merge_and_unload().eval()
    if (folder / TRAINED).is_file():
        config = AutoConfig.from_pretrained(folder)
        model = from_checkpoint(auto, backbone, config=config, **ANY_HEAD)
        model.load_state_dict(load_file(folder / TRAINED), strict=False)
        return model.eval()
    if (folder / "config.json").is_file():
        return auto.from_pretrained(folder).eval()
    raise FinetuneError(
        f"{folder}: neither a mask (adapter_config.json) nor a model (config.json); "
        "`python -m finetune.glue` writes them."
    )


def settings_of(folder: Path) -> dict:
    """What `job.json` in `folder` says; nothing where it isn't a job's."""
    path = folder / "job.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _kind(folder: Path) -> str:
    return settings_of(folder).get("kind", "text")


def _labels(folder: Path) -> list[str]:
    """From the adapter if it is a mask, which travels without its job, else from the job."""
    labels = getattr(PeftConfig.from_pretrained(str(folder)), "labels", None)
    return settings_of(folder).get("labels", []) if labels is None else labels
