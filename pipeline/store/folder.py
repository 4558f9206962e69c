"""A data folder, on a disk or in an object store: files by name, each of them whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import random
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import fsspec
import numpy as np

from pipeline.errors import PipelineError
from pipeline.store.stored_array import StoredArray, array_in, begin_of_rows

_EXTRAS = {"s3": "s3", "gs": "gcs"}  # schemes that can be written, and what each needs installed
_CREATE_ATTEMPTS = 5
# s3fs asks for the size of an object before it reads it, unless it may not read parts side by side.
_READ_OPTIONS = {"s3": {"max_concurrency": 1}}


@dataclass(frozen=True)
class Folder:
    """The files below a path or a URL. Names are relative and have `/` between their parts.

    A local file is written under a temporary name, synced and renamed; an object of a store with
    one request. So whatever is there is whole, and is there for all workers. A store has no rename:
    what says that something is finished must be written after it.

    Credentials, endpoint and region are the environment's. It holds the URL alone, so it may be
    sent to a worker, be compared, and be a key.
    """

    url: str

    @classmethod
    def at(cls, output: str) -> Folder:
        """The folder that a user names: a path, or a URL. Opens no connection.

        Raises:
            PipelineError: a URL that can't be written, or whose library isn't installed.
        """
        scheme, is_url, rest = output.partition("://")
        if not is_url:
            path = os.path.expanduser(output)  # noqa: PTH111  (pathlib's raises for unknown users)
            # fsspec would expand the tilde of a folder that is called so.
            return cls(os.path.abspath(path) if path.startswith("~") else path)  # noqa: PTH100
        if scheme == "file":
            return cls(url2pathname(rest))
        if scheme not in _EXTRAS:
            raise PipelineError(
                f"{output}: a data folder can't be at {scheme}://; give a path, or a URL that "
                f"begins with {' or '.join(f'{known}://' for known in _EXTRAS)}"
            )
        if not rest.strip("/") or set(rest) & set("*?[]#"):
            raise PipelineError(
                f"{output}: expected {scheme}://BUCKET/FOLDER, without any of * ? [ ] #"
            )
        try:
            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise PipelineError(
                f"{output}: {scheme}:// needs a library that isn't installed ({error}): "
                f"pip install 'latemask[{_EXTRAS[scheme]}]'"
            ) from error
        return cls(output.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    @property
    def local(self) -> Path | None:
        """Its path on this machine; None for a folder in a store."""
        return None if "://" in self.url else Path(self.url)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.local.resolve().name if self.local else self.url.rpartition("/")[2]

    def within(self, name: str) -> Folder:
        """A folder in this one; `.` is this one itself."""
        return self if name == "." else Folder(self.path(name))

    def path(self, name: str) -> str:
        """Path or URL of a file, as messages show it."""
        return str(self.local / name) if self.local else f"{self.url}/{name}".rstrip("/")

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """The bytes of a file, or those from `start` to `stop`. Raises FileNotFoundError."""
        with self._reading(name):
            path = self.path(name)
            options = _READ_OPTIONS.get(self._scheme, {})
            content: bytes = self._system.cat_file(path, start=start, end=stop, **options)
        return content

    def array(self, name: str) -> StoredArray:
        """The array in an .npy file, of which only what is looked at is read.

        It isn't mapped on a disk either: there a page that is missing reads as far ahead as the
        disk is set to, 8 MB in some clouds, while many readers want a few kB of many files.

        Raises FileNotFoundError.
        """
        return StoredArray(lambda start, stop: self.read(name, start, stop))

    def load(self, name: str) -> np.ndarray:
        """All of the array in an .npy file, in one request. Raises FileNotFoundError."""
        return array_in(self.read(name))

    def rows(self, name: str, rows: slice, dtype: np.dtype) -> np.ndarray:
        """These rows of a one-dimensional array of this type, in one request.

        Where only its name is known, `array` asks the file for its type and length first.
        """
        begin = begin_of_rows(dtype)
        start, stop = int(rows.start), int(rows.stop)
        if start >= stop:
            return np.empty(0, dtype)
        content = self.read(name, begin + start * dtype.itemsize, begin + stop * dtype.itemsize)
        return np.frombuffer(content, dtype)

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        with self._reading(name):
            return bool(self._system.exists(self.path(name)))

    def version(self, name: str) -> str:
        """Another string once the file was written again. Raises FileNotFoundError."""
        with self._reading(name):
            return str(self._system.ukey(self.path(name)))

    def is_as(self, name: str, receipt: dict[str, Any]) -> bool:
        """Whether a file is what its receipt certifies. Raises FileNotFoundError.

        A disk may lose what it had after a crash, so there its hash counts. A store keeps its own
        checksums, and to hash an object one must fetch it: there its `bytes` do.
        """
        if self.local is None:
            with self._reading(name):
                return bool(self._system.size(self.path(name)) == receipt["bytes"])
        with (self.local / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == receipt["sha256"]

    def list(self, under: str = "", deep: bool = False) -> dict[str, int]:
        """Bytes of the files under a folder by name; empty when there is no such folder.

        Folders in it are listed with a `/` behind their names and 0 bytes; with `deep` the files
        in them, too, and no folders.
        """
        system = self._system
        path = self.path(under)
        with self._reading(under):
            try:
                found = system.find(path, detail=True).values() if deep else system.ls(path, True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        root = system._strip_protocol(str(self.local or self.url)).rstrip("/") + "/"
        sizes: dict[str, int] = {}
        for entry in found:
            is_folder = entry["type"] == "directory"
            name = entry["name"].removeprefix(root)
            if name and (is_folder or not name.endswith("/")):  # some stores list folders as files
                sizes[f"{name.rstrip('/')}/" if is_folder else name] = (
                    0 if is_folder else int(entry["size"])
                )
        return dict(sorted(sizes.items()))

    def write(self, name: str, content: bytes) -> None:
        """Put `content` there: all of it, or nothing of it. PipelineError when that fails."""
        try:
            if self.local is None:
                self._system.pipe_file(self.path(name), content)
            else:
                _write_local(self.local / name, content)
        except Exception as error:  # what a store raises has no common base
            if self.local is not None and not isinstance(error, OSError):
                raise
            remedy = "Make room or rights there" if self.local else "Correct that"
            raise PipelineError(
                f"{self.path(name)}: can't be written ({_reason(error)}). {remedy} and run the "
                "same command again: it continues from what is finished"
            ) from error

    def create(self, name: str, content: bytes) -> bool:
        """Put `content` there unless there is a file already; whether it was put there.

        For stores. `content` must be unlike any other writer's, by which one knows one's own.
        """
        problem: Exception | None = None
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                self._system.pipe_file(self.path(name), content, mode="create")
                return True
            except Exception as error:
                # How a store says that a file exists differs from one to the next, and a request
                # that was sent twice is told so of its own file. So look. Where there is none,
                # somebody else was writing one at the same moment (409): try again.
                problem = error
            with contextlib.suppress(FileNotFoundError, PipelineError):
                return self.read(name) == content
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
        raise PipelineError(
            f"{self.path(name)}: can't be written ({_reason(problem)}); see that the bucket exists "
            "and that these credentials may write to it, or choose another --output"
        ) from problem

    def delete(self, name: str) -> None:
        """Delete a file, or with a `/` behind the name all that lies under it; none is fine."""
        if self.local is None:
            names = [*self.list(name, deep=True)] if name.endswith("/") else [name]
            with self._reading(name), contextlib.suppress(FileNotFoundError):
                if names:
                    self._system.rm([self.path(each) for each in names])
        elif name.endswith("/"):
            shutil.rmtree(self.local / name, ignore_errors=not (self.local / name).exists())
        else:
            (self.local / name).unlink(missing_ok=True)

    @property
    def _system(self) -> fsspec.AbstractFileSystem:
        """fsspec keeps one for each process, so that a fork doesn't share its connections.

        Listings aren't kept: other processes write, too.
        """
        return fsspec.filesystem(self._scheme, use_listings_cache=False)

    @property
    def _scheme(self) -> str:
        return "file" if self.local else self.url.partition("://")[0]

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Tell what keeps a store from answering as a user's error."""
        try:
            yield
        except (FileNotFoundError, PipelineError):
            raise
        except Exception as error:  # what a store raises has no common base
            if self.local is not None:
                raise
            raise PipelineError(
                f"{self.path(name)}: can't be reached ({_reason(error)}); see that the URL, the "
                "credentials and the endpoint in the environment are right"
            ) from error


def _write_local(path: Path, content: bytes) -> None:
    # Several machines may write it at once, where process ids aren't unique.
    temporary = path.with_name(f"{path.name}.{platform.node()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _reason(error: Exception | None) -> str:
    """What an error says, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
