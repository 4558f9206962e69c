"""What a run folder holds, and checkpoints that are complete or absent.

A checkpoint does not depend on the number of ranks or the ZeRO stage: full fp32 weights and Adam
moments by parameter name, and the progress of the run. Noise and dropout need no state, since
both are functions of (seed, step). It is written beside, fsynced and renamed, and the newest one
is found by looking, not by a pointer that can dangle.

    checkpoints/step-00001000/model.safetensors      full fp32 weights
                              optimizer.safetensors  exp_avg.NAME, exp_avg_sq.NAME
                              state.json             progress, sizes of the files above
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from pretrain.command_line import load_config
from pretrain.config import PretrainConfig, PretrainError
from pretrain.optim import Progress

logger = logging.getLogger(__name__)

FORMAT, VERSION = "latemask-checkpoint", 1
_FILES = ("model.safetensors", "optimizer.safetensors")
_MAY_CHANGE = ("run", "budget")  # between restarts of one run; everything else is its identity
_RUN_IDENTITY = ("seed",)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    progress: Progress

    @property
    def run_folder(self) -> Path:
        """`runs/NAME` of `runs/NAME/checkpoints/step-N`."""
        return self.path.parent.parent

    def weights(self) -> dict[str, Tensor]:
        """Full fp32 weights by parameter name."""
        return load_file(self.path / "model.safetensors")

    def moments(self) -> dict[str, Tensor]:
        """Adam's moments as `exp_avg.NAME` and `exp_avg_sq.NAME`."""
        return load_file(self.path / "optimizer.safetensors")


class RunFolder:
    """`runs/NAME/`: config.yaml, metrics.jsonl, checkpoints/, hf/."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run; a second one is refused while the first is alive."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                file.seek(0)
                raise PretrainError(
                    f"{self.path} is being written by process {file.read().strip() or 'unknown'}; "
                    "wait for it, or end it and run this command again"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def adopt(self, config: PretrainConfig) -> None:
        """Write the resolved config, or check that the folder was begun with the same one."""
        file = self.path / "config.yaml"
        if file.exists() and self.newest() is not None:
            changed = _differences(load_config(file), config)
            if changed:
                raise PretrainError(
                    f"{self.path} holds a run begun with another config:\n  "
                    + "\n  ".join(changed)
                    + "\nchoose another run.output_dir, or set these back to go on with it"
                )
        temporary = file.with_suffix(".yaml.partial")
        config.save(temporary)
        temporary.replace(file)

    def newest(self) -> Checkpoint | None:
        """The complete checkpoint with the most steps; damaged ones are passed over and named."""
        for path in sorted(self.checkpoints.glob("step-*"), reverse=True):
            try:
                return _read(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("%s is damaged (%s): passed over for the one before", path, error)
        return None

    def save(
        self, weights: dict[str, Tensor], moments: dict[str, Tensor], progress: Progress, keep: int
    ) -> Path:
        """Write a checkpoint beside, fsync, rename; then drop all but the newest `keep`."""
        final = self.checkpoints / f"step-{progress.step:08d}"
        partial = self.checkpoints / f".{final.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, tensors in zip(_FILES, (weights, moments), strict=True):
            save_file(tensors, partial / name, metadata={"format": "pt"})
        state = {
            "format": FORMAT,
            "version": VERSION,
            "progress": asdict(progress),
            "bytes": {name: (partial / name).stat().st_size for name in _FILES},
        }
        (partial / "state.json").write_text(json.dumps(state, indent=1))
        for file in [*partial.iterdir(), partial]:
            _fsync(file)
        shutil.rmtree(final, ignore_errors=True)  # the same step, saved again after a resume
        partial.replace(final)
        _fsync(self.checkpoints)
        for old in sorted(self.checkpoints.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
        return final


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`, which may be a run folder (its newest) or a `step-*` folder."""
    if (path / "state.json").is_file():
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PretrainError(f"{path} is damaged: {error}; use another checkpoint") from None
    newest = RunFolder(path).newest()
    if newest is None:
        raise PretrainError(f"{path} holds no complete checkpoint (checkpoints/step-*/state.json)")
    return newest


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / "state.json").read_text())
    if (state["format"], state["version"]) != (FORMAT, VERSION):
        raise ValueError(f"format {state['format']} version {state['version']}")
    for name, size in state["bytes"].items():
        if (found := (path / name).stat().st_size) != size:
            raise ValueError(f"{name} has {found:,} bytes, {size:,} were written")
    return Checkpoint(path, Progress(**state["progress"]))


def _differences(old: PretrainConfig, new: PretrainConfig) -> list[str]:
    """`group.key: was A, is B` for every field that makes it another run."""
    before, after = asdict(old), asdict(new)
    lines = []
    for group in before:
        keys = _RUN_IDENTITY if group == "run" else () if group in _MAY_CHANGE else before[group]
        for key in keys:
            if before[group][key] != after[group][key]:
                lines.append(f"{group}.{key}: was {before[group][key]}, is {after[group][key]}")
    return lines


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
