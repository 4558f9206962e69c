"""Load what a finished job left: the finetuned model, or the mask applied to its backbone."""

from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedModel

import finetune.masks  # noqa: F401 - registers the PEFT method "mask"
from finetune.errors import FinetuneError


def load_model(folder: Path, backbone: str) -> PreTrainedModel:
    """The classifier of job `folder` in evaluation mode; a mask is merged into `backbone`.

    Raises FinetuneError if the folder has neither, or if the mask belongs to other weights.
    """
    if (folder / "adapter_config.json").is_file():
        labels = PeftConfig.from_pretrained(str(folder)).labels
        base = AutoModelForSequenceClassification.from_pretrained(
            backbone, num_labels=max(1, len(labels))
        )
        return PeftModel.from_pretrained(base, str(folder)).merge_and_unload().eval()
    if (folder / "config.json").is_file():
        return AutoModelForSequenceClassification.from_pretrained(folder).eval()
    raise FinetuneError(
        f"{folder}: neither a mask (adapter_config.json) nor a model (config.json); "
        "`python -m finetune.glue` writes them."
    )
