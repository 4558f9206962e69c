import io
from pathlib import Path

import numpy as np
import pytest
import webdataset

from pipeline.shards.shard import shard_problem, tar_bytes
from pipeline.store.folder import Folder


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_webdataset_and_memmap_read_what_was_written(tmp_path: Path, dtype: str) -> None:
    rows = np.random.default_rng(0).integers(4, 60_000, (25, 16)).astype(dtype)
    content, blocks = tar_bytes(rows, "00000", 10)
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [block["key"] for block in blocks]
    assert (np.concatenate([sample["tokens.npy"] for sample in samples]) == rows).all()
    for sample, block in zip(samples, blocks, strict=True):
        mapped = np.memmap(path, dtype, "r", block["offset"], (block["sequences"], 16))
        assert (mapped == sample["tokens.npy"]).all()


def test_the_same_rows_give_the_same_bytes() -> None:
    rows = np.ones((5, 4), np.uint16)
    assert tar_bytes(rows, "0", 2)[0] == tar_bytes(rows.copy(order="F"), "0", 2)[0]


def test_damage_is_told_with_its_block(tmp_path: Path) -> None:
    import hashlib

    rows = np.full((6, 8), 9, np.uint16)
    rows[:, 0], rows[:, -1] = 0, 2
    content, blocks = tar_bytes(rows, "00000", 3)
    shard = {
        "name": "a.tar",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "blocks": blocks,
    }
    manifest = {"version": 1, "seq_len": 8, "dtype": "uint16", "vocab_size": 300}

    def problem(changed: bytes) -> str:
        (tmp_path / "a.tar").write_bytes(changed)
        return shard_problem(Folder(str(tmp_path)), shard, manifest) or "whole"

    def flipped(at: int) -> bytes:
        changed = io.BytesIO(content)
        changed.seek(at)
        changed.write(bytes([content[at] ^ 255]))
        return changed.getvalue()

    second = blocks[1]["offset"]
    assert problem(content) == "whole"
    assert "cut off in block 00000-000001" in problem(content[: second + 3])
    assert "block 00000-000001" in problem(flipped(second - 60))
    assert "block 00000-000001" in problem(flipped(second))
    assert "sha256" in problem(flipped(second + 2))
    assert "sha256" in problem(flipped(100))
