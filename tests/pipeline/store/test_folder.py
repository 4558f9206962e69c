"""One contract for a disk and a store; what only one of them has is below."""

from __future__ import annotations

import errno
import gc
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import PipelineError
from pipeline.store.folder import Folder


@pytest.fixture
def memory() -> Iterator[Folder]:
    """An empty folder in a store within this process."""
    yield Folder("memory://bucket/data")
    MemoryFileSystem.store.clear()


@pytest.fixture(params=["local", "relative", "memory", "s3"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Folder:
    if request.param == "s3":
        return Folder(f"{request.getfixturevalue('s3').url}/data")
    if request.param == "memory":
        found: Folder = request.getfixturevalue("memory")
        return found
    monkeypatch.chdir(tmp_path)
    return Folder(str(tmp_path / "a [1]*" / "data") if request.param == "local" else "./data/")


def test_names_are_found_again_with_their_sizes(folder: Folder) -> None:
    assert folder.list() == folder.list("none", deep=True) == {}
    assert not folder.exists("a")
    for name in ("manifest.json", ".work/chunks/00001.json", ".work/lock", "seq-64/a b.tar"):
        folder.write(name, name.encode())
    folder.write("empty", b"")
    assert folder.list() == {".work/": 0, "empty": 0, "manifest.json": 13, "seq-64/": 0}
    assert folder.list(".work") == {".work/chunks/": 0, ".work/lock": 10}
    assert folder.list("seq-64/") == {"seq-64/a b.tar": 14}
    assert folder.list(deep=True) == {
        ".work/chunks/00001.json": 23,
        ".work/lock": 10,
        "empty": 0,
        "manifest.json": 13,
        "seq-64/a b.tar": 14,
    }
    assert folder.read("seq-64/a b.tar") == b"seq-64/a b.tar"
    assert folder.read("seq-64/a b.tar", 2, 5) == b"q-6"
    assert folder.read("empty") == b""
    assert folder.within("seq-64").list() == {"a b.tar": 14}
    assert folder.within("seq-64").name == "seq-64"
    assert folder.within(".") == folder
    assert folder.name == "data"


def test_what_is_deleted_is_gone_and_nothing_else(folder: Folder) -> None:
    for name in ("tasks/library/train.tsv", "tasks/dev.tsv", "tasks.tsv", "a"):
        folder.write(name, b"x")
    folder.delete("tasks/")
    folder.delete("a")
    folder.delete("never there")
    folder.delete("never there/")
    assert folder.list(deep=True) == {"tasks.tsv": 1}
    for read in (folder.read, folder.version):
        with pytest.raises(FileNotFoundError):
            read("a")
    with pytest.raises(FileNotFoundError):
        folder.is_as("a", {"bytes": 1, "sha256": ""})


def test_a_file_that_was_written_again_has_another_version(folder: Folder) -> None:
    folder.write("a", b"one")
    first = folder.version("a")
    assert folder.version("a") == first
    folder.write("a", b"another")
    assert folder.version("a") != first
    assert folder.read("a") == b"another"


def test_rows_of_an_array(folder: Folder) -> None:
    rows = np.arange(6000, dtype=np.int64).reshape(3000, 2)
    content = io.BytesIO()
    np.save(content, rows)
    folder.write("a.npy", content.getvalue())
    array = folder.array("a.npy")
    assert (array.shape, array.dtype, len(array)) == ((3000, 2), np.dtype("int64"), 3000)
    assert (np.asarray(array[100:300]) == rows[100:300]).all()
    assert (np.asarray(array) == rows).all()
    assert (folder.load("a.npy") == rows).all()


@pytest.mark.parametrize("count", [0, 7, 3000])
def test_rows_of_an_array_of_known_type(folder: Folder, count: int) -> None:
    rows = np.zeros(count, [("hash", "u8", 2), ("length", "u4"), ("split", "u1")])
    rows["length"] = np.arange(count)
    content = io.BytesIO()
    np.save(content, rows)
    folder.write("a.npy", content.getvalue())
    for start, stop in ((0, count), (count // 3, count // 2), (count, count)):
        assert (folder.rows("a.npy", slice(start, stop), rows.dtype) == rows[start:stop]).all()


class _Slow:
    """A cycle whose collection lets other threads run, wherever it happens."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0.001)


def test_threads_read_arrays_at_once(tmp_path: Path) -> None:
    """CPython 3.11's parser, which reads their headers, can't be left and entered again."""
    content = io.BytesIO()
    np.save(content, np.zeros(3, [("hash", "u8"), ("number", "u4")]))
    folder = Folder(str(tmp_path))
    folder.write("rows.npy", content.getvalue())
    done = threading.Event()

    def read_on() -> None:
        while not done.is_set():
            folder.array("rows.npy")

    thresholds = gc.get_threshold()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_on)
        try:
            for each in range(600):
                _Slow()  # collected after as many more objects as the threshold says
                gc.set_threshold(gc.get_count()[0] + each % 60)
                folder.array("rows.npy")
        finally:
            gc.set_threshold(*thresholds)
            done.set()
        reading.result()


def test_a_folder_is_sent_and_compared_by_its_path(folder: Folder) -> None:
    import pickle

    folder.write("a", b"x")
    sent = pickle.loads(pickle.dumps(folder))
    assert sent == folder
    assert len({sent, folder}) == 1
    assert sent.read("a") == b"x"


def test_a_tilde_is_the_home_folder_unless_a_folder_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for output, place in (("~/data", "home/data"), ("~nobody-here/data", "~nobody-here/data")):
        folder = Folder.at(output)
        folder.write("a", b"content")
        assert (tmp_path / place / "a").read_bytes() == folder.read("a") == b"content"
        assert folder.list() == {"a": 7}


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    contents = [bytes([65 + i]) * 100_000 for i in range(8)]
    failed: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(20):
                folder.write("file", content)
                assert folder.read("file") in contents
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert folder.list() == {"file": 100_000}


class Conflicting(MemoryFileSystem):
    """A store whose next answers to `create` are errors, before or after it has done it."""

    protocol = "conflicting"
    errors: ClassVar[list[tuple[bool, Exception]]] = []

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        path = path.replace("conflicting://", "memory://")
        if self.errors:
            done, error = self.errors.pop(0)
            if done:
                super().pipe_file(path, value)
            raise error
        super().pipe_file(path, value, mode=mode)

    def cat_file(self, path: str, **more: Any) -> bytes:
        content: bytes = super().cat_file(path.replace("conflicting://", "memory://"), **more)
        return content


@pytest.fixture
def conflicting(memory: Folder) -> Folder:
    fsspec.register_implementation("conflicting", Conflicting, clobber=True)
    return Folder("conflicting://bucket/data")


CONFLICT = OSError(errno.EBUSY, "ConditionalRequestConflict")


@pytest.mark.parametrize("exists", [OSError(errno.EINVAL, "PreconditionFailed"), FileExistsError()])
def test_only_the_first_creates_a_file(conflicting: Folder, exists: Exception) -> None:
    Conflicting.errors[:] = [(False, CONFLICT), (False, CONFLICT)]
    assert conflicting.create("lock", b"mine")  # two were writing at the same moment
    Conflicting.errors[:] = [(False, exists)]
    assert not conflicting.create("lock", b"yours")
    Conflicting.errors[:] = [(True, exists)]  # the answer was lost, and the request sent again
    assert conflicting.create("other", b"mine")
    assert conflicting.read("lock") == b"mine"
    Conflicting.errors[:] = [(False, PermissionError("Access Denied"))] * 9
    with pytest.raises(PipelineError, match=r"third: can't be written \(Access Denied\)"):
        conflicting.create("third", b"mine")
    Conflicting.errors.clear()


def test_many_create_one_file_in_a_real_store(s3: Any) -> None:
    folder = Folder(f"{s3.url}/data")
    won: list[str] = []

    def create(name: str, me: str) -> None:
        if folder.create(name, me.encode()):
            won.append(name)

    names = [f"lock/{i}" for i in range(5)]
    threads = [
        threading.Thread(target=create, args=(name, f"thread {i}"))
        for name in names
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == names


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s4://bucket/data", r"s4://bucket/data: .* can't be at s4://; .* s3:// or gs://"),
        ("https://example.org/data", r"can't be at https://"),
        ("s3://", r"expected s3://BUCKET/FOLDER"),
        ("s3://bucket/data*", r"without any of \* \?"),
    ],
)
def test_a_url_that_cannot_be_written_is_told(url: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        Folder.at(url)


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(scheme: str) -> None:
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "get_filesystem_class", fail)
    with pytest.raises(PipelineError, match=r"pip install 'latemask\[gcs\]'"):
        Folder.at("gs://bucket/data")


def test_paths_of_this_machine(tmp_path: Path) -> None:
    assert Folder.at(f"file://{tmp_path}/a%20b").local == tmp_path / "a b"
    assert Folder.at("data").local == Path("data")
    assert Folder.at(str(tmp_path)).path("a/b") == f"{tmp_path}/a/b"
