"""Who may write a data folder: one run at a time.

On a disk the operating system keeps the lock, and releases it when the process ends, however it
ends. In a store a run holds a lease, `.work/lock/00000007.json`: a run creates the file of the next
number, which one of several can only; then it writes it again every few seconds. A lease that
hasn't changed for `EXPIRY_SECONDS` of the clock of the one who looks (no two clocks are compared)
is that of a run which was killed. A run that finds a later lease than its own has been taken for
killed, and ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.store.folder import Folder

LOCK = ".work/lock"
BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 30.0
# Wakes the main thread from whatever it waits for. Not SIGINT, which a shell has ignored in what it
# starts with `&`.
_INTERRUPT = signal.SIGUSR1
_HOLDER = "process "  # begins what a lock says
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}

log = logging.getLogger(__name__)


@contextlib.contextmanager
def lock(folder: Folder) -> Iterator[None]:
    """Hold a data folder for this process; PipelineError when another one holds it."""
    if folder.local is not None:
        with _locked(folder.local):
            yield
        return
    lease = Lease(folder)
    lease.take()
    try:
        with lease.renewed():
            yield
    finally:
        lease.release()


def has_been_held(folder: Folder) -> bool:
    """Whether a run has ever held a data folder, as the file or the leases say that it left."""
    if folder.local is None:
        return Lease(folder).number_of_last() > 0
    path = folder.local / LOCK
    if not path.is_file():
        return False
    # A run that was killed before it wrote its name has written nothing else, either.
    alone = len([*folder.local.iterdir(), *path.parent.iterdir()]) == 2
    return path.read_bytes().startswith(_HOLDER.encode()) or (alone and not path.stat().st_size)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    file_path = path / LOCK
    try:
        file_path.parent.mkdir(parents=True, exist_ok=True)
        opened = file_path.open("a+")
    except OSError as error:
        raise PipelineError(
            f"{path}: can't be written ({error.strerror}); choose another --output"
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.seek(0)
                raise _held(str(path), file.read().strip()) from error
            log.warning(
                "%s: this file system has no locks (%s); see that no other run writes there",
                path,
                error.strerror,
            )
        file.truncate(0)
        file.write(_holder())
        file.flush()
        yield


class Lease:
    """The lease of one run on a folder in a store."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._key = secrets.token_hex(8)
        self._number = 0
        self._beats = 0
        self._lost = ""

    def take(self) -> None:
        """Create the next lease, once the last one is released or expired.

        Raises:
            PipelineError: another run holds the folder, or it can't be written.
        """
        last = self.number_of_last()
        if last:
            self._wait_for_end(last)
        self._number = last + 1
        if not self._folder.create(_name(self._number), self._content()):
            raise _held(str(self._folder), self._read(self._number).get("holder", ""))
        for number in self._numbers():
            if number < self._number:
                self._folder.delete(_name(number))

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Write it again and again meanwhile, in the main thread.

        Raises PipelineError when another run has taken over.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(ended,), daemon=True)
        before = signal.signal(_INTERRUPT, signal.default_int_handler)
        thread.start()
        try:
            yield
        except KeyboardInterrupt:
            if self._lost:
                raise PipelineError(f"{self._folder}: {self._lost}") from None
            raise
        finally:
            ended.set()
            thread.join()
            signal.signal(_INTERRUPT, before)

    def release(self) -> None:
        """Say that it has ended, so that nobody waits for it to expire."""
        with contextlib.suppress(PipelineError):  # it expires
            if self.number_of_last() == self._number:
                self._folder.write(_name(self._number), self._content(released=True))

    def _renew(self, ended: threading.Event) -> None:
        renewed = time.monotonic()
        while not ended.wait(BEAT_SECONDS):
            try:
                if self.number_of_last() > self._number:
                    self._lost = "another run took over, since this one hadn't answered for long"
                else:
                    self._beats += 1
                    self._folder.write(_name(self._number), self._content())
                    renewed = time.monotonic()
            except PipelineError as error:
                if time.monotonic() - renewed > EXPIRY_SECONDS:
                    self._lost = f"the lock couldn't be renewed for long: {error}"
            if self._lost and not ended.is_set():  # an error that ends the run says more
                signal.pthread_kill(threading.main_thread().ident or 0, _INTERRUPT)
            if self._lost:
                return

    def _wait_for_end(self, number: int) -> None:
        """Return when a lease is released or expired; PipelineError when it is renewed."""
        seen = self._read(number)
        if seen.get("released"):
            return
        holder = seen.get("holder", "")
        log.info(
            "%s: was begun by %s; this run continues if that one gives no sign of life for %.0f s",
            self._folder,
            holder,
            EXPIRY_SECONDS,
        )
        expires = time.monotonic() + EXPIRY_SECONDS
        while time.monotonic() < expires:
            time.sleep(min(1.0, EXPIRY_SECONDS / 10))
            now = self._read(number)
            if now.get("released"):
                return
            if now != seen:
                raise _held(str(self._folder), holder)

    def number_of_last(self) -> int:
        """Number of the folder's last lease; 0 when there has been none."""
        return max(self._numbers(), default=0)

    def _numbers(self) -> list[int]:
        names = [Path(name).stem for name in self._folder.list(LOCK)]
        return [int(name) for name in names if name.isdecimal()]

    def _read(self, number: int) -> dict[str, Any]:
        """What a lease says; nothing when it has been replaced by a later one."""
        try:
            content: dict[str, Any] = json.loads(self._folder.read(_name(number)))
        except FileNotFoundError:
            return {}
        return content

    def _content(self, released: bool = False) -> bytes:
        content = {"holder": _holder(), "key": self._key, "beats": self._beats}
        return json.dumps(content | {"released": released}).encode()


def _name(number: int) -> str:
    return f"{LOCK}/{number:08}.json"


def _holder() -> str:
    return f"{_HOLDER}{os.getpid()} on {platform.node()}"


def _held(folder: str, holder: str) -> PipelineError:
    return PipelineError(
        f"{folder}: another run is writing this folder ({holder}); "
        "wait for it, or choose another --output"
    )
