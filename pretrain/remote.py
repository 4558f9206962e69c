"""Objects at a URL (`s3://`, `gs://`, `hf://` …), by way of fsspec.

Endpoint, region and credentials come from the environment, as each filesystem documents it
(`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS` …). What may pass by
itself is tried again for a limited time; what will not is an error at once.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import fsspec

from pretrain.errors import PretrainError

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 300.0
_LONGEST_PAUSE = 20.0  # seconds between two tries
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class StoreError(PretrainError):
    """A store did not answer for too long; the same command resumes."""

    exit_code = 69  # EX_UNAVAILABLE


class MissingError(PretrainError):
    """There is no such object."""


class ObjectStore:
    """The objects below one URL, by their names relative to it."""

    def __init__(self, url: str, key: str, retry_seconds: float = RETRY_SECONDS) -> None:
        """Choose the filesystem; nothing is asked of the store yet.

        Args:
            url: without the name of an object.
            key: the config's key that it comes from, for errors.
            retry_seconds: for which a request that fails is repeated.

        Raises:
            PretrainError: no filesystem is known, or installed, for this kind of URL.
        """
        self.url = url.rstrip("/")
        self._key = key
        self._retry_seconds = retry_seconds
        protocol = url.partition("://")[0]
        try:
            self._filesystem, self._root = fsspec.url_to_fs(self.url)
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            remedy = f"pip install 'latemask[{extra}]'" if extra else "install what it names"
            raise PretrainError(f"{key}: {url} can't be opened ({error}): {remedy}") from None
        except ValueError as error:
            raise PretrainError(
                f"{key}: {url} can't be opened ({error}); expected a URL that fsspec knows, such "
                "as s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
            ) from None

    def read(self, name: str) -> bytes:
        """The content of a small object."""
        return self._request("read", name, lambda path: self._filesystem.cat_file(path))

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return self._request("looked for", name, lambda path: self._filesystem.exists(path))

    def list(self, folder: str) -> dict[str, int]:
        """Bytes of every object below `folder`, by name."""

        def find(path: str) -> dict[str, int]:
            self._filesystem.invalidate_cache()
            found = self._filesystem.find(path, detail=True)
            return {name: info["size"] for name, info in found.items()}

        skipped = len(self._root) + 1
        return {path[skipped:]: n for path, n in self._request("listed", folder, find).items()}

    def download(self, name: str, file: Path) -> None:
        """Write an object to `file`, which may hold a part of it after an error."""
        self._request("fetched", name, lambda path: self._filesystem.get_file(path, str(file)))

    def upload(self, file: Path, name: str) -> None:
        """Write an object from `file`: complete, or not at all."""
        self._request("uploaded", name, lambda path: self._filesystem.put_file(str(file), path))

    def write(self, name: str, content: bytes) -> None:
        """Write a small object."""
        self._request("written", name, lambda path: self._filesystem.pipe_file(path, content))

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._request("removed", name, lambda path: self._filesystem.rm_file(path))

    def _request(self, done: str, name: str, make: Callable[[str], T]) -> T:
        """What `make` returns for the object's path, tried again while that may help.

        Raises:
            PretrainError: the object isn't there, may not be touched, or the disk is full.
            StoreError: it still fails after `retry_seconds`.
        """
        began = time.monotonic()
        pause = 0.5
        while True:
            try:
                return make(f"{self._root}/{name}")
            except Exception as error:  # each filesystem has exceptions of its own
                text = " ".join(f"{type(error).__name__}: {error}".split())
                failed = f"{self.url}/{name} can't be {done} ({text})"
                if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                    raise PretrainError(f"{self._key}: {failed}; make room on this disk") from None
                if _will_stay(error):
                    kind = MissingError if isinstance(error, FileNotFoundError) else PretrainError
                    raise kind(
                        f"{self._key}: {failed}; check the address, the credentials and their "
                        "rights, and that what wrote it has finished"
                    ) from None
                if time.monotonic() - began + pause > self._retry_seconds:
                    raise StoreError(
                        f"{self._key}: {failed}, tried for {time.monotonic() - began:.0f} s; check "
                        "the address and the store: the same command resumes"
                    ) from None
                logger.warning("%s; trying again in %.1f s", failed, pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _will_stay(error: Exception) -> bool:
    """Whether trying again can't help. Missing credentials have a type of each library's own."""
    kinds = FileNotFoundError | PermissionError | NotImplementedError
    return isinstance(error, kinds) or "Credentials" in type(error).__name__
