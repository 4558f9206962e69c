"""A run's checkpoints at a URL: copied there beside the training, and back where they are missing.

    URL/config.yaml  starts.jsonl  metrics.jsonl  checkpoints/step-00001000/…

A store has no rename, so what makes a checkpoint complete there is its state.json, which is written
last and removed first. After each save one thread of rank 0 copies what the store lacks, the newest
first, and then removes what a local folder would not keep either. If that fails, the run continues,
nothing older is lost, and the next save tries it again.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pretrain.config import PretrainConfig, RunConfig
from pretrain.config_parser import load_config
from pretrain.errors import NotSavedError, PretrainError
from pretrain.fault_tolerance.checkpoint import DAMAGE, Checkpoint, State
from pretrain.fault_tolerance.identity import require_same_run
from pretrain.fault_tolerance.run_folder import RunFolder, open_usable, to_keep
from pretrain.remote import MissingError, ObjectStore, StoreError

logger = logging.getLogger(__name__)

RETRY_SECONDS = 60.0  # a save that comes later tries again
PARALLEL = 8
_RUN_FILES = ("config.yaml", "starts.jsonl", "metrics.jsonl")


class Uploads:
    """The copy of one run's checkpoints; all but `begun_config` is for rank 0."""

    def __init__(self, run: RunFolder, settings: RunConfig) -> None:
        """Nothing is asked of the store yet.

        Raises:
            PretrainError: no filesystem is installed for this kind of URL.
        """
        assert settings.upload_to is not None
        self._run = run
        self._settings = settings
        self._store = ObjectStore(settings.upload_to, "run.upload_to", RETRY_SECONDS)
        self.uploading: Path | None = None
        """Must not be removed."""
        self._error: Exception | None = None
        """Of the last attempt."""
        self._damaged: set[str] = set()
        self._lock = threading.Lock()
        self._is_due = False
        self._thread: threading.Thread | None = None

    def begun_config(self) -> PretrainConfig | None:
        """Of the run at the URL; None where it has no complete checkpoint."""
        if not _complete(self._store.list("checkpoints")):
            return None
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.yaml"
            self._store.download("config.yaml", file)
            return load_config(file)

    def restore(self, config: PretrainConfig) -> None:
        """Fetch the newest usable checkpoint, unless the run's folder has one with as many steps.

        If that was made amid skipped steps, those before it are fetched, too, down to one that was
        not: going back needs it.

        Raises:
            PretrainError: at the URL lies another run, or there are checkpoints, none can be used,
                and the folder has none.
            StoreError: the store doesn't answer, and the folder has none.
        """
        try:
            begun = self.begun_config()
        except StoreError as error:
            if not self._run.checkpoint_paths():
                raise
            logger.warning("resuming from %s alone: %s", self._run.path, error)
            return
        if begun is None:
            return
        require_same_run(begun, config, self._store.url, "run.upload_to")
        local = [path for path in self._run.checkpoint_paths() if open_usable(path)]
        newest_here = local[-1].name if local else ""
        names = [n for n in _complete(self._store.list("checkpoints")) if n > newest_here]
        self._run.checkpoints.mkdir(parents=True, exist_ok=True)
        fetched: Checkpoint | None = None
        for name in reversed(names):
            checkpoint = self._fetch(name)
            fetched = checkpoint or fetched
            if checkpoint and not checkpoint.progress.skipped_in_row:
                break
        if fetched is None and names and not local:
            raise PretrainError(
                f"{self._store.url}: none of its {len(names)} checkpoints can be used (reasons "
                "above); put a copy back, or move them away to begin the run again"
            )
        for name in _RUN_FILES if fetched else ():
            file = self._run.path / name
            if not file.exists() and self._store.exists(name):
                self._store.download(name, file)

    def begin(self) -> None:
        """Copy what the store lacks by now, in a thread; waits for nothing."""
        with self._lock:
            self._is_due = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """Wait for the thread.

        Raises:
            NotSavedError: its last attempt failed.
        """
        if thread := self._thread:
            thread.join()
        if self._error is not None:
            raise NotSavedError(
                f"the last checkpoint is saved in {self._run.checkpoints}, but not uploaded "
                f"({self._error}); the same command does that"
            )

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._is_due:
                    self._thread = None
                    return
                self._is_due = False
            try:
                self._copy_what_is_missing()
                self._remove_old()
                self._error = None
            except Exception as error:  # whatever it is must be said, not end this thread
                self._error = error
                logger.warning(
                    "checkpoints are not all uploaded; the run continues, and the next save tries "
                    "it again: %s",
                    error,
                )

    def _copy_what_is_missing(self) -> None:
        there = _complete(self._store.list("checkpoints"))
        for path in reversed(self._run.checkpoint_paths()):
            try:
                content = (path / "state.json").read_bytes()
                state = State.read(path / "state.json")
            except DAMAGE:  # or removed since; newest() names what can't be read
                continue
            name = f"checkpoints/{path.name}/state.json"
            if path.name in there:
                if self._store.read(name) == content:
                    continue
                self._store.remove(name)  # the same step, reached again
            self.uploading = path
            try:
                self._copy(path, state)
                self._store.write(name, content)
                logger.info("uploaded %s to %s", path.name, self._store.url)
            except PretrainError:
                if path.exists():
                    raise
            finally:
                self.uploading = None

    def _copy(self, path: Path, state: State) -> None:
        """All but state.json."""
        folder = f"checkpoints/{path.name}"
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="upload") as pool:
            list(pool.map(lambda p: self._store.upload(path / p, f"{folder}/{p}"), state.parts))
        sizes = self._store.list(folder)
        for part, entry in state.parts.items():
            if (found := sizes.get(f"{folder}/{part}")) != entry["bytes"]:
                raise PretrainError(
                    f"run.upload_to: {self._store.url}/{folder}/{part} has {found} bytes after "
                    f"{entry['bytes']:,} were written"
                )
        for file in _RUN_FILES:
            with suppress(FileNotFoundError):
                self._store.write(file, (self._run.path / file).read_bytes())

    def _remove_old(self) -> None:
        """What the folder would not keep, or went back from; what can't be read stays."""
        local = self._run.checkpoint_paths()
        if not local:  # moved away: nothing says what is old
            return
        newest = local[-1].name
        objects = self._store.list("checkpoints")
        complete = _complete(objects)
        states = dict(self._usable(complete, objects))
        kept = to_keep({n: s for n, s in states.items() if n <= newest}, self._settings)
        begun = {name.split("/")[1] for name in objects} - set(complete)  # by a killed process
        for name in [*(states.keys() - kept), *begun]:
            folder = f"checkpoints/{name}/"
            if name in complete:
                self._store.remove(f"{folder}state.json")
            for part in objects:
                if part.startswith(folder) and part != f"{folder}state.json":
                    self._store.remove(part)

    def _usable(self, names: list[str], objects: dict[str, int]) -> Iterator[tuple[str, State]]:
        """Checkpoints at the URL that have what their state.json says, as far as sizes tell."""
        for name in names:
            with suppress(*DAMAGE):
                state = State.parse(self._store.read(f"checkpoints/{name}/state.json"))
                sizes = {part: objects[f"checkpoints/{name}/{part}"] for part in state.parts}
                if name not in self._damaged and all(
                    sizes[part] == entry["bytes"] for part, entry in state.parts.items()
                ):
                    yield name, state

    def _fetch(self, name: str) -> Checkpoint | None:
        """Into the run's folder; None, and a warning, where it is damaged."""
        final = self._run.checkpoints / name
        partial = final.with_name(f".{name}.partial")
        partial.mkdir(exist_ok=True)
        logger.info("fetching %s from %s", name, self._store.url)
        try:
            content = self._store.read(f"checkpoints/{name}/state.json")
            parts = State.parse(content).parts
            if odd := [part for part in parts if Path(part).name != part]:
                raise ValueError(f"state.json names {odd[0]!r}, expected a plain file name")
            with ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as pool:
                list(
                    pool.map(
                        lambda part: self._store.download(
                            f"checkpoints/{name}/{part}", partial / part
                        ),
                        parts,
                    )
                )
            (partial / "state.json").write_bytes(content)
            Checkpoint.open(partial, verify=True)
        except (*DAMAGE, MissingError) as error:
            self._damaged.add(name)
            logger.warning(
                "%s/checkpoints/%s can't be used (%s): trying the one before",
                self._store.url,
                name,
                error,
            )
            return None
        for file in partial.iterdir():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        if final.exists():  # and can't be read
            final.replace(_free_name(final))
        partial.replace(final)
        return Checkpoint.open(final)


def _complete(objects: dict[str, int]) -> list[str]:
    """Names of complete checkpoints, by rising step, in a list of all objects."""
    names = [name.split("/")[1] for name in objects if name.endswith("/state.json")]
    return sorted(name for name in names if name.startswith("step-") and name[5:].isdecimal())


def _free_name(path: Path) -> Path:
    number = 1
    while (other := path.with_name(f"{path.name}.unreadable-{number}")).exists():
        number += 1
    return other
