"""A data folder: files by name, each of them whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Folder:
    """The files below one path. Names are relative and have `/` between their parts.

    A file is written under a temporary name and renamed, so whatever is there is whole. It holds
    a path alone, so it may be sent to a worker, be compared, and be a key.
    """

    url: str

    @classmethod
    def at(cls, output: str) -> Folder:
        """The folder that a user names. PipelineError where it can't be opened."""
        if "://" in output:
            raise PipelineError(f"{output}: a URL; give a folder of this machine")
        return cls(output)

    def __str__(self) -> str:
        return self.url

    @property
    def local(self) -> Path:
        """Its path on this machine."""
        return Path(self.url)

    def within(self, name: str) -> Folder:
        """A folder in this one; `.` is this one itself."""
        return self if name == "." else Folder(str(self.local / name))

    def path(self, name: str) -> str:
        """Where a file lies, as messages show it."""
        return str(self.local / name)

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """The bytes of a file, or those from `start` to `stop`. Raises FileNotFoundError."""
        return LocalFileSystem().cat_file(self.path(name), start, stop)

    def array(self, name: str) -> np.ndarray:
        """The array in an .npy file, through a memory map. Raises FileNotFoundError."""
        array: np.ndarray = np.load(self.path(name), mmap_mode="r")
        return array

    def is_as(self, name: str, receipt: dict[str, Any]) -> bool:
        """Whether a file is what its receipt certifies. Raises FileNotFoundError."""
        with Path(self.path(name)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == receipt["sha256"]

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.local / name).exists()

    def version(self, name: str) -> str:
        """Another string after the file was written again. Raises FileNotFoundError."""
        return LocalFileSystem().ukey(self.path(name))

    def list(self, under: str = "", deep: bool = False) -> dict[str, int]:
        """Bytes of the files under a folder by name; empty when there is no such folder.

        Folders in it are listed with a `/` behind their names and 0 bytes; with `deep` the files
        in them, too, and no folders.
        """
        system = LocalFileSystem()
        path = self.path(under)
        root = system._strip_protocol(str(self.local)) + "/"
        try:
            found = [*system.find(path, detail=True).values()] if deep else system.ls(path, True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        sizes: dict[str, int] = {}
        for entry in found:
            is_folder = entry["type"] == "directory"
            name = entry["name"].removeprefix(root)
            sizes[f"{name}/" if is_folder else name] = 0 if is_folder else entry["size"]
        return dict(sorted(sizes.items()))

    def write(self, name: str, content: bytes) -> None:
        """Put `content` there: all of it, or nothing of it. PipelineError when that fails."""
        path = self.local / name
        temporary = path.with_name(f"{path.name}.{platform.node()}-{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise PipelineError(
                f"{path}: can't be written ({error.strerror}). Make room or rights there and run "
                "the same command again: it goes on from what is finished"
            ) from error

    def delete(self, name: str) -> None:
        """Delete a file, or with a `/` behind the name all that lies under it; none is fine."""
        path = self.local / name
        if name.endswith("/"):
            shutil.rmtree(path, ignore_errors=not path.exists())
        else:
            path.unlink(missing_ok=True)
