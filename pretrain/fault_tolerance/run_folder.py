"""What a run folder holds: its config, its checkpoints, and one writer at a time.

    runs/NAME/config.yaml  starts.jsonl  metrics.jsonl  checkpoints/step-00001000/  hf/

The newest checkpoint is found by looking, not by a pointer that can dangle. A folder whose name
begins with a dot is one that was not finished. What can't be read is passed over, never removed:
the next look may find it whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from pretrain.config import PretrainConfig, RunConfig
from pretrain.config_parser import load_config
from pretrain.errors import PretrainError
from pretrain.fault_tolerance.checkpoint import DAMAGE, Checkpoint, State
from pretrain.fault_tolerance.identity import require_same_run

logger = logging.getLogger(__name__)

K = TypeVar("K")


class RunFolder:
    """`runs/NAME/`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run; a second one is refused while the first is alive.

        Raises:
            PretrainError: another process holds it, or it can't be written.
        """
        with self._must_be_writable():
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    file.seek(0)
                    writer = file.read().strip() or "unknown"
                    raise PretrainError(
                        f"{self.path} is being written by process {writer}; wait for it, or end "
                        "it and run this command again"
                    ) from None
                logger.warning(
                    "%s: this file system has no locks (%s); make sure that no other run writes "
                    "this folder",
                    self.path,
                    error.strerror,
                )
            with self._must_be_writable():
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
            yield

    @contextmanager
    def _must_be_writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise PretrainError(
                f"run.output_dir: {self.path} can't be written ({error.strerror}{where}); choose "
                "another folder, make room, or make this one writable"
            ) from None

    def claim(self, config: PretrainConfig) -> None:
        """Write the resolved config, or check that the folder was begun with the same one.

        Raises:
            PretrainError: what makes it another run has changed; each difference is named.
        """
        self.check_config(config)
        file = self.path / "config.yaml"
        temporary = file.with_suffix(".yaml.partial")
        with self._must_be_writable():
            config.save(temporary)
            temporary.replace(file)

    def check_config(self, config: PretrainConfig) -> None:
        """See that the folder holds no run of another config; what may change is logged.

        Raises:
            PretrainError: what makes it another run has changed; each difference is named.
        """
        if begun := self.begun_config():
            for text in require_same_run(begun, config, self.path, "run.output_dir"):
                logger.info("changed since the last start: %s", text)

    def begun_config(self) -> PretrainConfig | None:
        """Of the run that the folder holds; None where it has no checkpoint."""
        file = self.path / "config.yaml"
        return load_config(file) if file.exists() and self.checkpoint_paths() else None

    def record_start(self, start: dict[str, Any]) -> None:
        """Append a start's provenance to starts.jsonl; warns where the code has changed."""
        file = self.path / "starts.jsonl"
        before = self.starts()
        with file.open("a+") as stream:
            stream.seek(max(0, stream.tell() - 1))
            cut_off = stream.read() not in ("", "\n")
            stream.write("\n" * cut_off + json.dumps(start) + "\n")
        if before and before[-1].get("commit") != start.get("commit"):
            logger.warning(
                "the code has changed since the last start: commit was %s, is %s",
                before[-1].get("commit"),
                start.get("commit"),
            )

    def starts(self) -> list[dict[str, Any]]:
        """Every start of the run that was recorded, in order."""
        file = self.path / "starts.jsonl"
        found = []
        for line in file.read_text().splitlines() if file.exists() else []:
            with suppress(json.JSONDecodeError):  # cut off by a kill
                found.append(json.loads(line))
        return found

    def newest(self, *, verify: bool = False) -> Checkpoint | None:
        """The usable checkpoint with the most steps; damaged ones are passed over and named.

        Args:
            verify: read every byte and compare the hashes, too.

        Raises:
            PretrainError: there are checkpoints, and none can be used.
        """
        return self._newest_where(lambda _checkpoint: True, verify=verify)

    def last(self, count: int) -> list[Checkpoint]:
        """The `count` usable checkpoints with the most steps, by rising step.

        Raises:
            PretrainError: there are fewer.
        """
        found: list[Checkpoint] = []
        for path in reversed(self.checkpoint_paths()):
            if len(found) < count and (checkpoint := open_usable(path)):
                found.insert(0, checkpoint)
        if len(found) < count:
            raise PretrainError(
                f"{self.checkpoints} holds {len(found)} usable checkpoints, {count} were asked "
                "for; run.keep_checkpoints and run.keep_every say how many a run keeps"
            )
        return found

    def rollback_target(self) -> Checkpoint | None:
        """The newest checkpoint that was not made amid skipped steps; None where none was made.

        Later ones, made amid skipped steps, are removed: the next start must not take them.

        Raises:
            PretrainError: there are checkpoints, and none can be used.
        """
        target = self._newest_where(lambda c: c.progress.skipped_in_row == 0, verify=True)
        for path in self.checkpoint_paths() if target else []:
            with suppress(*DAMAGE):
                progress = Checkpoint.open(path).progress
                if progress.step > target.progress.step and progress.skipped_in_row:  # type: ignore[union-attr]
                    _remove(path)
        return target

    def _newest_where(
        self, wanted: Callable[[Checkpoint], bool], *, verify: bool
    ) -> Checkpoint | None:
        paths = self.checkpoint_paths()
        for path in reversed(paths):
            checkpoint = open_usable(path, verify=verify)
            if checkpoint and wanted(checkpoint):
                return checkpoint
        if paths:
            raise PretrainError(
                f"{self.checkpoints}: none of its {len(paths)} checkpoints can be used (reasons "
                "above, or made amid skipped steps); put a copy back, or move them away to begin "
                "the run again"
            )
        return None

    def checkpoint_paths(self) -> list[Path]:
        """Complete checkpoints by rising step; copies under other names are none of ours."""
        return sorted(path for path in self.checkpoints.glob("step-*") if path.name[5:].isdecimal())

    def best_loss(self) -> float:
        """The lowest validation loss of any checkpoint; infinity where none was measured."""
        losses = []
        for path in self.checkpoint_paths():
            with suppress(*DAMAGE):
                losses.append(Checkpoint.open(path).state.valid_loss)
        return min((loss for loss in losses if _is_measured(loss)), default=math.inf)

    def remove_unfinished(self) -> None:
        """What a run that was killed while saving left behind; a replaced checkpoint comes back."""
        for replaced in self.checkpoints.glob(".step-*.replaced"):
            path = replaced.with_name(replaced.name[1:].removesuffix(".replaced"))
            if path.exists():
                shutil.rmtree(replaced)
            else:
                replaced.replace(path)
        for partial in self.checkpoints.glob(".step-*.partial"):
            shutil.rmtree(partial)

    def prune(self, settings: RunConfig, uploading: Path | None = None) -> None:
        """Remove checkpoints but those to keep, and the one that is being uploaded."""
        states = {}
        for path in self.checkpoint_paths():
            with suppress(*DAMAGE):  # newest() names what can't be read; it stays
                states[path] = Checkpoint.open(path).state
        for path in states.keys() - to_keep(states, settings) - {uploading}:
            _remove(path)


def to_keep(states: Mapping[K, State], settings: RunConfig) -> set[K]:
    """Of checkpoints by rising step: the newest, every `keep_every`-th step's, and the best."""
    kept = set(list(states)[-settings.keep_checkpoints :])
    if settings.keep_every:
        kept |= {c for c, s in states.items() if s.progress.step % settings.keep_every == 0}
    losses = {c: s.valid_loss for c, s in states.items() if _is_measured(s.valid_loss)}
    if settings.keep_best and losses:
        kept.add(min(losses, key=lambda checkpoint: losses[checkpoint]))
    return kept


def open_usable(path: Path, *, verify: bool = False) -> Checkpoint | None:
    """None, and a warning, where it can't be used."""
    try:
        return Checkpoint.open(path, verify=verify)
    except DAMAGE as error:
        logger.warning("%s can't be used (%s): trying the one before", path, error)
        return None


def _is_measured(loss: float | None) -> TypeGuard[float]:
    return loss is not None and math.isfinite(loss)


def _remove(path: Path) -> None:
    """Not a folder that looks complete while it is being emptied."""
    doomed = path.with_name(f".{path.name}.partial")
    path.replace(doomed)
    shutil.rmtree(doomed)


def open_checkpoint(path: Path, *, verify: bool = False) -> Checkpoint:
    """The checkpoint in `path`, which may be a run folder (its newest) or a `step-*` folder.

    Args:
        path: to look in.
        verify: read every byte and compare the hashes, too.

    Raises:
        PretrainError: there is none, or it can't be used.
    """
    if (path / "state.json").is_file():
        try:
            return Checkpoint.open(path, verify=verify)
        except DAMAGE as error:
            raise PretrainError(f"{path} is damaged: {error}; use another checkpoint") from None
    newest = RunFolder(path).newest(verify=verify)
    if newest is None:
        raise PretrainError(f"{path} holds no complete checkpoint (checkpoints/step-*/state.json)")
    return newest
