"""The Trainer's checkpoints of an unfinished job, and which of them training can resume from.

A process that is killed, or a disk that is full, leaves a `checkpoint-N` that is empty or cut off.
The Trainer would take the newest folder, whatever is in it, and continue without a word where its
optimizer is missing.
"""

import json
import logging
import re
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainerState

logger = logging.getLogger(__name__)

STATE = "trainer_state.json"
# Of each group a checkpoint has one at least; DeepSpeed's `latest` names where it keeps all three.
PARTS = {
    "weights": ("*model*.safetensors", "pytorch_model*", "latest"),
    "optimizer": ("optimizer*", "latest"),
    "schedule": ("scheduler.pt", "latest"),
    "random state": ("rng_state*.pth",),
}


def numbered_checkpoints(folder: Path) -> dict[int, Path]:
    """The folders `checkpoint-N` in `folder` by their step, the newest first."""
    found = {}
    for path in folder.glob("checkpoint-*"):
        name = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if name and path.is_dir():
            found[int(name[1])] = path
    return dict(sorted(found.items(), reverse=True))


def newest_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; a warning for each newer one, which stays there."""
    for step, path in numbered_checkpoints(folder).items():
        reason = _defect(path, step)
        if reason is None:
            return path
        logger.warning("%s is passed over: %s", path, reason)
    return None


def _defect(path: Path, step: int) -> str | None:
    """What is wrong with checkpoint `path`; None if it is whole."""
    if not (path / STATE).is_file():
        return f"it has no {STATE}, which is written last"
    missing = [name for name, globs in PARTS.items() if not any(map(list, map(path.glob, globs)))]
    if missing:
        return f"it has no {', no '.join(missing)}"
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        try:
            _read_through(file)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            return f"{file.relative_to(path)} is cut off or damaged ({error})"
    try:
        found = TrainerState.load_from_json(str(path / STATE)).global_step
    except TypeError as error:
        return f"{STATE} is of another version of transformers ({error})"
    return None if found == step else f"{STATE} is of step {found}"


def _read_through(file: Path) -> None:
    """One of the errors that `_defect` knows unless the file is as long as it says it is."""
    if file.suffix == ".json":
        content = json.loads(file.read_text(encoding="utf-8"))
        if file.name.endswith(".index.json"):
            for shard in set(content["weight_map"].values()):
                (file.parent / shard).stat()
    elif file.suffix == ".safetensors":
        with safe_open(file, framework="pt"):
            pass
    elif file.suffix in (".pt", ".pth", ".bin"):  # as torch.save writes them: zipped, with sums
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            raise ValueError(error) from None
        if damaged is not None:
            raise ValueError(f"its checksum of {damaged} is wrong")
