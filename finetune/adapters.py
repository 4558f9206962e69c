"""Folders that hold a part of a model: which backbone it was learned on, and where that is.

A mask, LoRA or another adapter of PEFT's has an `adapter_config.json`; what BitFit or a linear
probe trained is in `trained.safetensors`, beside a `config.json` (finetune/jobs/methods.py). Each
names its backbone as it was called in training.
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from finetune.errors import FinetuneError
from finetune.files import read_json
from finetune.tasks.encode import Backbone

ADAPTER = "adapter_config.json"
TRAINED = "trained.safetensors"
BASE = "base_model_name_or_path"


def peft_type(folder: Path) -> str | None:
    """Which of PEFT's methods the folder holds, as "MASK" or "LORA"; None if it is none of them."""
    path = folder / ADAPTER
    return str(read_json(path).get("peft_type")) if path.is_file() else None


def is_part(folder: Path) -> bool:
    """Whether the folder needs a backbone."""
    return (folder / ADAPTER).is_file() or (folder / TRAINED).is_file()


def load_backbone(folder: Path, given: str | None, flag: str) -> Backbone:
    """The backbone of the part in `folder`: the `given` one, else the one that the folder names.

    A relative path counts from the directory that the training ran in: it is looked for from here,
    then from each folder that `folder` lies in. FinetuneError names what was tried, and `flag`.
    """
    if given is not None:
        return Backbone.load(given)
    named = _named(folder)
    if not named:
        raise FinetuneError(f"{folder} names no backbone; say where it is with {flag}.")
    for start in (Path(), *folder.resolve().parents):
        if (start / named / "config.json").is_file():
            return Backbone.load(str(start / named))
    try:
        return Backbone.load(named)
    except FinetuneError as error:
        above = "" if Path(named).is_absolute() else f", nor below a folder that {folder} lies in"
        raise FinetuneError(
            f"{folder} was learned on {named}: no model at {Path(named).absolute()}{above}, and "
            f"none of that name of the Hub in reach. Say where it is with {flag}."
        ) from error


def _named(folder: Path) -> str | None:
    if (folder / ADAPTER).is_file():
        return read_json(folder / ADAPTER).get(BASE)
    file = folder / TRAINED
    try:
        with safe_open(file, framework="pt") as stored:
            return (stored.metadata() or {}).get(BASE)
    except (OSError, SafetensorError) as error:
        raise FinetuneError(
            f"{file}: {error}. The file is cut off or damaged; copy it again."
        ) from None
