"""The shards of a data set at a URL that one node holds for now, in a folder of limited size.

Any number of processes share the folder: the ranks of a node, and other runs on the same data.
Locks (flock) say who does what, and end with their process, however it ends:

- `.NAME.lock`, exclusive: this process fetches, checks or removes the shard; the others wait, and
  find it there. So a node fetches a shard once.
- `NAME` itself, shared: this process reads the shard; nobody removes it.
- `.room.lock`, exclusive: this process counts what there is, and removes what was used last the
  longest ago until the next shard fits.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import PretrainError
from pretrain.manifest import TOKENIZER_FILES, content_sha256, file_sha256, parse_manifest
from pretrain.remote import ObjectStore, StoreError

logger = logging.getLogger(__name__)

PARALLEL = 4  # shards that a node fetches at once


@dataclass(frozen=True)
class HeldShard:
    """A shard that stays on this node's disk until it is released."""

    content: NDArray[np.uint8]
    """All bytes of the tar, memory-mapped."""
    stream: IO[bytes]
    """Carries the lock."""

    def release(self) -> None:
        """It may be removed, if nobody else holds it."""
        with suppress(OSError):
            os.utime(self.stream.name)  # what was used last is removed last
        fcntl.flock(self.stream, fcntl.LOCK_UN)  # the memory map has a descriptor of its own
        self.stream.close()


class ShardCache:
    """One data set's folder in `data.cache_dir`: its manifest, its tokenizer, and some shards."""

    def __init__(self, store: ObjectStore, cache_dir: Path) -> None:
        """Fetch what is small; processes of one node may do so at once.

        Raises:
            PretrainError: the store has no manifest there, or one that is refused (before anything
                is written).
        """
        self.store = store
        content = store.read("manifest.json")
        manifest = parse_manifest(content, f"{store.url}/manifest.json")
        self.folder = cache_dir.expanduser() / content_sha256(content)[:16]
        self.limit_bytes: int | None = None
        """That the shards may take; None: no limit."""
        self._shards: dict[str, dict[str, Any]] = {
            shard["name"]: shard
            for split in manifest["splits"].values()
            for shard in split["shards"]
        }
        self._has_warned = False
        self._opened = time.time()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / ".lock"):
                if not (self.folder / "manifest.json").exists():
                    self._fetch_metadata(content)
        except OSError as error:
            raise self._unwritable(error) from None

    @property
    def total_bytes(self) -> int:
        """Of all shards of all splits."""
        return sum(shard["bytes"] for shard in self._shards.values())

    def hold(self, shard: dict[str, Any]) -> HeldShard:
        """The shard of this entry of the manifest, fetched if it isn't there.

        Raises:
            PretrainError: the object is not what the manifest says, or the disk is full.
            StoreError: the store doesn't answer.
        """
        file = self.folder / shard["name"]
        try:
            with _locked(self._lock_of(shard["name"])):
                if not self._has(file, shard):
                    self._fetch(shard)
                os.utime(file)
                stream = file.open("rb")
                fcntl.flock(stream, fcntl.LOCK_SH)
        except OSError as error:
            raise self._unwritable(error) from None
        return HeldShard(np.asarray(np.memmap(stream, mode="r", dtype=np.uint8)), stream)

    def _has(self, file: Path, shard: dict[str, Any]) -> bool:
        """Whether the file is whole; it is hashed unless some process has held it since the start.

        Whoever holds it has compared it, and set its time.
        """
        if not file.exists():
            return False
        found = file.stat()
        if found.st_mtime > self._opened and found.st_size == shard["bytes"]:
            return True
        return _difference(file, shard) is None

    def _fetch_metadata(self, manifest: bytes) -> None:
        for name in TOKENIZER_FILES:
            if self.store.exists(name):
                partial = self._partial_of(name)
                self.store.download(name, partial)
                _finish(partial, self.folder / name)
        partial = self._partial_of("manifest.json")  # last: the others are complete
        partial.write_bytes(manifest)
        _finish(partial, self.folder / "manifest.json")

    def _fetch(self, shard: dict[str, Any]) -> None:
        """Its lock is held."""
        name = shard["name"]
        partial = self._partial_of(name)
        self._make_room(shard)
        try:
            self.store.download(name, partial)
            if _difference(partial, shard):  # cut off on the way, perhaps
                self.store.download(name, partial)
            if found := _difference(partial, shard):
                raise PretrainError(
                    f"{self.store.url}/{name} {found}: the object has changed; write the data set "
                    "there again, shards first and manifest.json last"
                )
            _finish(partial, self.folder / name)
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, shard: dict[str, Any]) -> None:
        """Remove shards until there is room for one more, and take that room."""
        partial = self._partial_of(shard["name"])
        with _locked(self.folder / ".room.lock"):
            excess = shard["bytes"] - (self.limit_bytes or self.total_bytes)
            present: list[tuple[float, str]] = []
            for name, other in self._shards.items():
                for file in (self.folder / name, self._partial_of(name)):
                    with suppress(FileNotFoundError):
                        present.append((file.stat().st_mtime, name))
                        excess += other["bytes"]
            for _, name in sorted(present):
                if excess > 0 and name != shard["name"] and self._remove_unless_held(name):
                    excess -= self._shards[name]["bytes"]
            partial.touch()
        if excess > 0 and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s takes %.2f GB more than it may (data.cache_gb), since all of its shards are "
                "being read: another run may share it",
                self.folder,
                excess / 1e9,
            )

    def _remove_unless_held(self, name: str) -> bool:
        """Whether it could be removed: nobody reads or fetches it."""
        removed = False
        with suppress(BlockingIOError), _locked(self._lock_of(name), fcntl.LOCK_NB):
            for file in (self.folder / name, self._partial_of(name)):
                with suppress(FileNotFoundError), file.open("rb+") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    file.unlink()
                    removed = True
        return removed

    def _unwritable(self, error: OSError) -> PretrainError:
        return PretrainError(
            f"data.cache_dir: {self.folder} can't be written ({error}); choose another folder, "
            "make room, or make this one writable"
        )

    def _lock_of(self, name: str) -> Path:
        return self.folder / f".{name}.lock"

    def _partial_of(self, name: str) -> Path:
        return self.folder / f".{name}.partial"


class ReadAhead:
    """The shards of one split that this process holds or waits for, fetched in threads."""

    def __init__(
        self,
        cache: ShardCache,
        shards: Sequence[dict[str, Any]],
        on_release: Callable[[int], None],
    ) -> None:
        """Nothing is fetched yet; `on_release` is told each shard that is let go."""
        self._cache = cache
        self._shards = shards
        self._on_release = on_release
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch")
        self._held: dict[int, Future[HeldShard]] = {}

    def move(self, upcoming: Iterator[tuple[int, bool]]) -> None:
        """Hold what is needed next, and of what follows as much as the cache has room for.

        Args:
            upcoming: shards in the order of need, and whether each is needed at once.
        """
        wanted = []
        room = float("inf") if self._cache.limit_bytes is None else self._cache.limit_bytes
        for shard, is_needed in upcoming:
            room -= self._shards[shard]["bytes"]
            if room < 0 and not is_needed:
                break
            wanted.append(shard)
        self._keep(wanted)

    def content(self, shard: int) -> NDArray[np.uint8]:
        """The bytes of a shard, as soon as they are there; one is held at a time without `move`."""
        if shard not in self._held:
            self._keep([shard])
        return self._held[shard].result().content

    def _keep(self, wanted: Sequence[int]) -> None:
        for shard in self._held.keys() - set(wanted):
            self._on_release(shard)
            future = self._held.pop(shard)
            future.cancel()  # unless it has begun
            future.add_done_callback(_release)
        for shard in wanted:
            if shard not in self._held or _has_timed_out(self._held[shard]):
                self._held[shard] = self._pool.submit(self._cache.hold, self._shards[shard])


def _release(future: Future[HeldShard]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().release()


def _has_timed_out(future: Future[HeldShard]) -> bool:
    """Whether the store was away when this was read ahead: it may be back when it is needed."""
    return future.done() and isinstance(future.exception(), StoreError)


@contextmanager
def _locked(file: Path, flags: int = 0) -> Iterator[None]:
    with file.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | flags)
        yield


def _difference(file: Path, shard: dict[str, Any]) -> str | None:
    """What tells a file from what the manifest says of the shard."""
    if (size := file.stat().st_size) != shard["bytes"]:
        return f"has {size:,} bytes, manifest.json says {shard['bytes']:,}"
    if "sha256" not in shard:
        return None
    found = file_sha256(file)
    if found != shard["sha256"]:
        return f"has sha256 {found}, manifest.json says {shard['sha256']}"
    return None


def _finish(partial: Path, file: Path) -> None:
    """Rename a complete file, so that it is there whole or not at all."""
    with partial.open("rb+") as stream:
        os.fsync(stream.fileno())
    partial.replace(file)
