"""Sequences and their errors, against webdataset and brute force."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset

from pipeline.store.folder import Folder
from pipeline.store.work import write_json
from pretrain.data import ShardFolder, ShardHashes
from pretrain.errors import PretrainError


def all_rows(folder: Path, split: str) -> np.ndarray:
    shards = sorted(str(p) for p in folder.glob(f"{split}-*.tar"))
    samples = webdataset.WebDataset(shards, shardshuffle=False).decode()
    return np.concatenate([sample["tokens.npy"] for sample in samples])


def test_any_row_is_the_one_that_webdataset_reads(shard_folder: Path) -> None:
    rows, expected = ShardFolder(shard_folder).sequences("train"), all_rows(shard_folder, "train")
    assert len(rows) == len(expected) == 200
    picked = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(rows[picked], expected[picked])
    np.testing.assert_array_equal(
        rows.token_counts(), np.bincount(expected.ravel(), minlength=rows.vocab_size)
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), r"manifest\.json is missing"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "not the tokenizer"),
        (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
        (lambda f: (f / "train-00001-of-00002.tar").write_bytes(b"x"), "has 1 bytes"),
        (lambda f: (f / "train-00001-of-00002.tar").unlink(), "of-00002.tar is missing"),
        (lambda f: rewrite(f, version=9), "expected"),
        (lambda f: shutil.rmtree(f), "is not a folder"),
    ],
)
def test_damaged_folders_are_errors_that_name_the_file(
    shard_folder: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(shard_folder, folder)
    damage(folder)
    with pytest.raises(PretrainError, match=message):
        ShardFolder(folder).sequences("train")


def test_a_token_that_the_tokenizer_lacks_names_shard_block_and_sequence(
    shard_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(shard_folder, folder)
    shard = ShardFolder(folder).manifest["splits"]["train"]["shards"][1]
    file = folder / shard["name"]
    content = bytearray(file.read_bytes())
    content[shard["blocks"][1]["offset"] + 2 * 32 * 7 + 11] ^= 0x80  # row 7, a high byte
    file.write_bytes(content)
    rows = ShardFolder(folder).sequences("train")
    rows[np.arange(100 + 48 + 7)]
    message = rf"{shard['name']}, block 1, sequence 7: token \d+ where.*pipeline verify"
    with pytest.raises(PretrainError, match=message):
        rows[np.array([3, 100 + 48 + 7])]


@pytest.mark.parametrize("rank", [0, 1])
def test_any_flipped_byte_is_found_beside_the_training(
    shard_folder: Path, tmp_path: Path, rank: int
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(shard_folder, folder)
    shards = sorted(folder.glob("*.tar"))
    content = bytearray(shards[0].read_bytes())
    content[-700] ^= 1
    shards[0].write_bytes(content)
    hashes = ShardHashes(ShardFolder(folder), rank, num_ranks=2)
    hashes.wait()
    if rank == 0:  # whose share the first shard is
        with pytest.raises(PretrainError, match=rf"{shards[0].name} has sha256"):
            hashes.check()
    else:
        hashes.check()


def test_the_identity_of_the_data_is_the_manifest_without_its_provenance(
    shard_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(shard_folder, folder)
    file = folder / "manifest.json"
    data = Folder(str(folder))
    assert ShardFolder(folder).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()

    manifest = json.loads(file.read_text())
    manifest["config"] = {"sources": [{"name": "Bücher"}], "share": 0.1, "none": None}
    write_json(
        data, "manifest.json", manifest
    )  # as the pipeline wrote it before there was provenance
    identity = ShardFolder(folder).sha256
    assert identity == hashlib.sha256(file.read_bytes()).hexdigest()
    for command in ("python -m pipeline", "python -m pipeline --overwrite"):
        write_json(data, "manifest.json", {"provenance": {"command": command}} | manifest)
        assert ShardFolder(folder).sha256 == identity
    write_json(data, "manifest.json", manifest | {"provenance": {}, "seq_len": 16})
    assert ShardFolder(folder).sha256 != identity


def test_a_manifest_that_names_a_file_outside_the_folder_is_refused(
    shard_folder: Path, tmp_path: Path, refused_name: object
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(shard_folder, folder)
    splits = ShardFolder(folder).manifest["splits"]
    splits["valid"]["shards"][0]["name"] = refused_name
    rewrite(folder, splits=splits)
    with pytest.raises(PretrainError) as error:
        ShardFolder(folder)
    message = str(error.value)
    assert message.startswith(f"{folder}/manifest.json: splits.valid.shards[0].name is ")
    assert f"{refused_name!r}, expected a plain file name" in message
    assert "`python -m pipeline" in message
    assert error.value.exit_code == 2


def test_an_unusable_manifest_is_an_error_of_one_line(
    shard_folder: Path, tmp_path: Path, bad_manifest: tuple[bytes, str]
) -> None:
    folder, (content, message) = tmp_path / "data", bad_manifest
    shutil.copytree(shard_folder, folder)
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(PretrainError, match=message) as error:
        ShardFolder(folder)
    assert str(error.value).startswith(f"{folder}/manifest.json")
    assert "\n" not in str(error.value)


def rewrite(folder: Path, **changes: object) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
