"""Object stores: what is tried again, and a data set at a URL against the folder it came from.

fsspec's in-memory filesystem stands for a store here; `test_object_stores.py` has a real one.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from pretrain.data import ShardFolder
from pretrain.errors import PretrainError
from pretrain.remote import ObjectStore, StoreError

URL = "memory://bucket/data"


class Flaky:
    """A method that fails some times before it works."""

    def __init__(self, method: Callable[..., Any], failures: int, error: Exception) -> None:
        self.method, self.failures, self.error = method, failures, error
        self.calls = 0

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.method(*args, **keywords)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time stands still but for pauses, which are noted and take none."""
    pauses: list[float] = []
    monkeypatch.setattr("pretrain.remote.time.sleep", pauses.append)
    monkeypatch.setattr("pretrain.remote.time.monotonic", lambda: sum(pauses))
    return pauses


@pytest.fixture
def remote(shard_folder: Path) -> fsspec.AbstractFileSystem:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.put(f"{shard_folder}/", "/bucket/data/", recursive=True)
    return filesystem


def test_a_request_that_fails_is_tried_again(
    remote: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
    no_pause: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = ObjectStore(URL, "data.path", retry_seconds=60)
    flaky = Flaky(remote.cat_file, 3, ConnectionError("reset\nby peer"))
    monkeypatch.setattr(remote, "cat_file", flaky)
    assert store.read("tokenizer.json")
    assert no_pause == [0.5, 1.0, 2.0]
    text = "memory://bucket/data/tokenizer.json can't be read (ConnectionError: reset by peer)"
    assert caplog.text.count(text) == 3


def test_a_store_that_stays_away_is_given_up_in_time(
    remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, no_pause: list[float]
) -> None:
    store = ObjectStore(URL, "data.path", retry_seconds=60)
    monkeypatch.setattr(remote, "cat_file", Flaky(remote.cat_file, 10**6, TimeoutError("slow")))
    with pytest.raises(StoreError, match=rf"^data\.path: {URL}/x can't be read .*slow") as error:
        store.read("x")
    assert error.value.exit_code == 69  # Slurm scripts try again later
    assert "\n" not in str(error.value)
    assert 30 < sum(no_pause) <= 60


class NoCredentialsError(Exception):
    """As botocore's: it has no base but Exception's."""


@pytest.mark.parametrize(
    "error", [FileNotFoundError("x"), PermissionError("403"), NoCredentialsError("none")]
)
def test_what_will_not_pass_is_an_error_at_once(
    remote: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
    no_pause: list[float],
    error: Exception,
) -> None:
    monkeypatch.setattr(remote, "cat_file", Flaky(remote.cat_file, 10**6, error))
    with pytest.raises(PretrainError, match=r"x can't be read .* credentials") as found:
        ObjectStore(URL, "data.path").read("x")
    assert found.value.exit_code == 2
    assert no_pause == []


def test_a_full_disk_is_no_fault_of_the_store(
    remote: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
    no_pause: list[float],
    tmp_path: Path,
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path))
    monkeypatch.setattr(remote, "get_file", Flaky(remote.get_file, 10**6, full))
    with pytest.raises(PretrainError, match=r"No space left .* make room"):
        ObjectStore(URL, "data.path").download("x", tmp_path / "x")
    assert no_pause == []


def test_a_url_of_no_known_kind_and_one_without_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(PretrainError, match=r"data\.path: ftps3://x can't be opened"):
        ObjectStore("ftps3://x", "data.path")
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(
        PretrainError, match=r"run\.upload_to: gs://.*pip install 'latemask\[gcs\]'"
    ):
        ObjectStore("gs://bucket/run", "run.upload_to")


def test_rows_of_a_url_are_those_of_the_folder(
    remote: fsspec.AbstractFileSystem, shard_folder: Path, tmp_path: Path
) -> None:
    near, far = ShardFolder(shard_folder), ShardFolder(URL, tmp_path)
    some = np.arange(0, len(near.sequences("train")), 7)
    np.testing.assert_array_equal(far.sequences("train")[some], near.sequences("train")[some])
    assert far.tokenizer_sha256 == near.tokenizer_sha256


def test_opening_fetches_no_shard_and_what_is_there_is_not_fetched_again(
    remote: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    data = ShardFolder(URL, tmp_path)
    assert not list(data.path.glob("*.tar"))
    first = data.sequences("train")[np.arange(4)]
    assert [file.name for file in data.path.glob("*.tar")] == ["train-00000-of-00002.tar"]
    remote.rm("/bucket/data/train-00000-of-00002.tar")
    np.testing.assert_array_equal(
        ShardFolder(URL, tmp_path).sequences("train")[np.arange(4)], first
    )


@pytest.mark.parametrize("damage", ["flipped", "cut off"])
def test_a_file_of_the_cache_that_is_damaged_is_fetched_again(
    remote: fsspec.AbstractFileSystem, tmp_path: Path, damage: str
) -> None:
    data = ShardFolder(URL, tmp_path)
    first = data.sequences("train")[np.arange(4)]
    file = data.path / "train-00000-of-00002.tar"
    content = bytearray(file.read_bytes())
    content[3000] ^= 1
    file.write_bytes(content[: None if damage == "flipped" else 4000])
    np.testing.assert_array_equal(
        ShardFolder(URL, tmp_path).sequences("train")[np.arange(4)], first
    )


@pytest.mark.parametrize("damage", ["flipped", "cut off"])
def test_an_object_that_is_not_what_the_manifest_says_is_named(
    remote: fsspec.AbstractFileSystem, tmp_path: Path, damage: str
) -> None:
    path = "/bucket/data/train-00001-of-00002.tar"
    content = bytearray(remote.cat_file(path))
    content[3000] ^= 1
    remote.pipe(path, bytes(content[: None if damage == "flipped" else 4000]))
    sequences = ShardFolder(URL, tmp_path).sequences("train")
    sequences[np.arange(100)]
    found = "sha256" if damage == "flipped" else "4,000 bytes"
    with pytest.raises(PretrainError, match=rf"{URL}/train-00001.* has {found}") as error:
        sequences[np.array([100])]
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_data_set_made_again_is_another_one(
    remote: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    first = ShardFolder(URL, tmp_path).path
    remote.pipe("/bucket/data/manifest.json", (first / "manifest.json").read_bytes() + b"\n")
    assert ShardFolder(URL, tmp_path).path != first


def test_the_same_data_with_another_provenance_is_not_fetched_again(
    remote: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    manifest = json.loads(remote.cat_file("/bucket/data/manifest.json"))
    folders = set()
    for command in ("one", "another"):
        content = json.dumps(manifest | {"provenance": {"command": command}})
        remote.pipe("/bucket/data/manifest.json", content.encode())
        folders.add(ShardFolder(URL, tmp_path).path)
    assert len(folders) == 1


def test_a_url_without_a_manifest_and_one_without_a_shard(
    remote: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    with pytest.raises(PretrainError, match=r"memory://nowhere/manifest\.json can't be read"):
        ShardFolder("memory://nowhere", tmp_path)
    remote.rm("/bucket/data/train-00000-of-00002.tar")
    sequences = ShardFolder(URL, tmp_path).sequences("train")
    with pytest.raises(PretrainError, match=r"train-00000-of-00002\.tar can't be fetched"):
        sequences[np.array([0])]


def test_nothing_is_fetched_for_a_manifest_that_names_a_file_outside_the_cache(
    remote: fsspec.AbstractFileSystem, tmp_path: Path, refused_name: object
) -> None:
    manifest = json.loads(remote.cat_file("/bucket/data/manifest.json"))
    shard = manifest["splits"]["train"]["shards"][1]
    remote.pipe("/bucket/x.tar", b"x")
    shard["name"], shard["bytes"] = refused_name, 1
    remote.pipe("/bucket/data/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(PretrainError) as error:
        ShardFolder(URL, tmp_path / "outer/cache")
    message = str(error.value)
    assert message.startswith(f"{URL}/manifest.json: splits.train.shards[1].name is ")
    assert f"{refused_name!r}, expected a plain file name" in message
    assert list(tmp_path.rglob("*")) == []


def test_nothing_is_fetched_for_an_unusable_manifest(
    remote: fsspec.AbstractFileSystem, tmp_path: Path, bad_manifest: tuple[bytes, str]
) -> None:
    content, message = bad_manifest
    remote.pipe("/bucket/data/manifest.json", content)
    with pytest.raises(PretrainError, match=message) as error:
        ShardFolder(URL, tmp_path)
    assert str(error.value).startswith(f"{URL}/manifest.json")
    assert "\n" not in str(error.value)
    assert list(tmp_path.rglob("*")) == []
