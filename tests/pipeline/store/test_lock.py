"""One run at a time holds a folder: by the system's lock on a disk, by a lease in a store."""

from __future__ import annotations

import errno
import fcntl
import logging
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import PipelineError
from pipeline.store import lock as locks
from pipeline.store.folder import Folder
from pipeline.store.lock import Lease, lock
from tests.s3 import Bucket


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """An empty folder in a store within this process, with leases that expire in a second."""
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(locks, "EXPIRY_SECONDS", 1.0)
    yield Folder("memory://bucket/data")
    MemoryFileSystem.store.clear()


def test_a_second_run_is_refused_on_a_disk(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "data"))
    refused = pytest.raises(PipelineError, match=r"another run .*\(process \d+ on ")
    with lock(folder), refused, lock(folder):
        pass
    with lock(folder):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(file: object, operation: int) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    entered = False
    with caplog.at_level(logging.WARNING), lock(Folder(str(tmp_path))):
        entered = True
    assert entered
    assert "has no locks (No locks available)" in caplog.text


def test_a_second_run_is_refused_in_a_store(store: Folder) -> None:
    with lock(store):
        began = time.monotonic()
        with pytest.raises(PipelineError, match=r"another run .*\(process \d+ on "), lock(store):
            pass
        assert time.monotonic() - began < locks.EXPIRY_SECONDS  # it was seen to be alive
    began = time.monotonic()
    with lock(store):  # the first one has released it
        assert time.monotonic() - began < locks.EXPIRY_SECONDS / 2
    assert list(store.list(locks.LOCK)) == [".work/lock/00000002.json"]


def test_the_lease_of_a_killed_run_expires(store: Folder) -> None:
    Lease(store).take()  # and never renewed again
    began = time.monotonic()
    with lock(store):
        assert locks.EXPIRY_SECONDS <= time.monotonic() - began < 3 * locks.EXPIRY_SECONDS


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_run_that_was_taken_for_killed_ends(store: Folder, handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)  # as a shell starts it, as one does with `&`
    with pytest.raises(PipelineError, match="another run took over"), lock(store):
        store.write(".work/lock/00000002.json", b'{"holder": "process 1 on elsewhere"}')
        threading.Event().wait(20)  # as a run that waits for its workers
    signal.signal(signal.SIGINT, before)
    assert list(store.list(locks.LOCK)) == [
        ".work/lock/00000001.json",
        ".work/lock/00000002.json",
    ]


def test_a_lease_that_is_lost_while_an_error_ends_the_run_hides_no_error(
    store: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = threading.Event()

    def of_another_run_after_all(_: Lease) -> int:
        ending.wait()
        time.sleep(0.3)  # the main thread waits for this one by now
        return 99

    lease = Lease(store)
    lease.take()
    monkeypatch.setattr(Lease, "number_of_last", of_another_run_after_all)
    with pytest.raises(PipelineError, match="the disk is full"), lease.renewed():
        time.sleep(0.3)  # until a renewal is under way
        ending.set()
        raise PipelineError("the disk is full")


def test_one_of_many_takes_over(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "EXPIRY_SECONDS", 1.0)
    folder = Folder(f"{s3.url}/data")
    Lease(folder).take()
    taken: list[Lease] = []
    refused: list[str] = []

    def take() -> None:
        lease = Lease(folder)
        try:
            lease.take()
            taken.append(lease)
        except PipelineError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert len(refused) == 5
    assert all("another run is writing this folder (process " in text for text in refused)
