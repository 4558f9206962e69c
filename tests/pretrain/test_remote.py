"""A data set behind fsspec's in-memory filesystem against the folder it was copied from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pretrain.data import ShardFolder
from pretrain.errors import PretrainError

URL = "memory://bucket/data"


@pytest.fixture
def remote(shard_folder: Path) -> fsspec.AbstractFileSystem:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.put(f"{shard_folder}/", "/bucket/data/", recursive=True)
    return filesystem


def test_rows_of_a_url_are_those_of_the_folder(
    remote: fsspec.AbstractFileSystem, shard_folder: Path, tmp_path: Path
) -> None:
    near, far = ShardFolder(shard_folder), ShardFolder(URL, tmp_path)
    some = np.arange(0, len(near.sequences("train")), 7)
    np.testing.assert_array_equal(far.sequences("train")[some], near.sequences("train")[some])
    assert far.tokenizer_sha256 == near.tokenizer_sha256


def test_what_is_there_is_not_fetched_again_and_what_is_missing_is(
    remote: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    folder = ShardFolder(URL, tmp_path).path
    shards = sorted(folder.glob("*.tar"))
    before = {shard: shard.stat().st_mtime_ns for shard in shards}
    # As an interrupted copy leaves it: no manifest, one shard missing, one cut off.
    (folder / "manifest.json").unlink()
    shards[0].unlink()
    shards[1].write_bytes(b"cut")
    assert ShardFolder(URL, tmp_path).path == folder
    for shard in shards[2:]:
        assert shard.stat().st_mtime_ns == before[shard]
    assert ShardFolder(folder).sequences("train")[np.arange(4)].shape[0] == 4
    remote.rm("/bucket/data/" + shards[0].name)
    ShardFolder(URL, tmp_path)  # finished: nothing is asked for but the manifest


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
    shutil.rmtree(tmp_path)
    name = next(n for n in remote.ls("/bucket/data", detail=False) if n.endswith(".tar"))
    remote.rm(name)
    with pytest.raises(PretrainError, match="can't be fetched"):
        ShardFolder(URL, tmp_path)


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
