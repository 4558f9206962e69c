"""The bytes of a shard: a webdataset tar of blocks, each a `.tokens.npy` [n, seq_len].

Format: docs/formats.md, section A. Nothing here depends on the clock, the user or the machine.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.shards.assign import shard_counts, shard_documents
from pipeline.shards.pack import pack
from pipeline.split import SplitName
from pipeline.store import work
from pipeline.store.folder import Folder
from pipeline.tokens import tokenizer
from pipeline.tokens.special import SpecialTokens


class Shard(NamedTuple):
    """One tar to be written."""

    seq_len: int
    split: SplitName
    number: int  # within the split
    name: str  # below the data folder: `train-00000-of-00004.tar`, `seq-512/train-…`


def data_set(config: Config, seq_len: int) -> str:
    """Folder below the data folder of the rows of one length: that itself, or `seq-512`."""
    return "." if seq_len == config.seq_len else f"seq-{seq_len}"


def shard_list(folder: Folder, config: Config) -> list[Shard]:
    """Every shard of a data folder, by length, split and number."""
    counts = shard_counts(folder, config.shards)
    return [
        Shard(
            seq_len,
            split,
            i,
            str(PurePosixPath(data_set(config, seq_len), f"{split}-{i:05}-of-{of:05}.tar")),
        )
        for seq_len in config.seq_lens
        for split, of in counts.items()
        for i in range(of)
    ]


def write_shard(folder: Folder, number: int, config: Config) -> dict[str, Any]:
    """Pack and write the shard at `number` in `shard_list`; its receipt, at once when it is there.

    The receipt is what manifest.json says of the shard, and its documents and leftover tokens.
    """
    shard = shard_list(folder, config)[number]
    if receipt := work.read_receipt(folder, shard.name):
        return receipt
    packing = config.packing
    documents = shard_documents(
        folder,
        shard.split,
        shard.number,
        dtype=np.dtype(config.dtype),
        sentences=packing.whole_sentences,
    )
    special = tokenizer.special_tokens(folder)
    packed = pack(
        documents.tokens,
        shard.seq_len,
        dtype=config.dtype,
        starts=documents.starts,
        mode=packing.mode,
        cls=special.cls,
        sep=special.sep,
    )
    rows = packed.rows
    content, blocks = tar_bytes(rows, f"{shard.number:05}", config.shards.block_sequences)
    return work.write_certified(
        folder,
        shard.name,
        content,
        name=PurePosixPath(shard.name).name,
        sequences=len(rows),
        tokens=rows.size,
        blocks=blocks,
        documents=len(documents.tokens),
        leftover_tokens=packed.leftover,
        repeated_tokens=packed.repeated,
    )


def tar_bytes(
    rows: np.ndarray, prefix: str, block_sequences: int
) -> tuple[bytes, list[dict[str, Any]]]:
    """A tar of `rows` [n, seq_len] in blocks, and each block's key, offset and sequences.

    `offset` is where the block's first token lies in the tar: np.memmap(tar, dtype, "r", offset,
    (sequences, seq_len)) is the block.
    """
    buffer = io.BytesIO()
    blocks: list[dict[str, Any]] = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for start in range(0, len(rows), block_sequences):
            block = np.ascontiguousarray(rows[start : start + block_sequences])
            array = io.BytesIO()
            np.save(array, block)
            key = f"{prefix}-{len(blocks):06}"
            member = tarfile.TarInfo(f"{key}.tokens.npy")
            member.size = len(array.getvalue())
            member.mode = 0o644
            data_starts = buffer.tell() + tarfile.BLOCKSIZE
            tar.addfile(member, io.BytesIO(array.getvalue()))
            offset = data_starts + member.size - block.nbytes
            blocks.append({"key": key, "offset": offset, "sequences": len(block)})
    return buffer.getvalue(), blocks


def shard_problem(folder: Folder, shard: dict[str, Any], manifest: dict[str, Any]) -> str | None:
    """What is wrong with one shard of a manifest, naming the block; None when it is whole."""
    try:
        content = folder.read(shard["name"])
    except FileNotFoundError:
        return "is missing"
    seq_len, dtype = manifest["seq_len"], np.dtype(manifest["dtype"])
    special = SpecialTokens.of_manifest(manifest, folder.path(work.MANIFEST))
    for number, block in enumerate(shard["blocks"]):
        shape = (block["sequences"], seq_len)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": dtype.str, "fortran_order": False, "shape": shape}
        )
        npy, end = header.getvalue(), block["offset"] + shape[0] * seq_len * dtype.itemsize
        where = f"block {block['key']} ({number + 1} of {len(shard['blocks'])})"
        if end > len(content):
            return f"is cut off in {where}: {len(content):,} bytes, the block ends at {end:,}"
        if content[block["offset"] - len(npy) : block["offset"]] != npy:
            return f"has no array of shape {shape}, {dtype} where {where} should be"
        rows = np.frombuffer(content, dtype, shape[0] * seq_len, block["offset"]).reshape(shape)
        if rows.size and int(rows.max()) >= manifest["vocab_size"]:
            return f"holds token {int(rows.max())} of {manifest['vocab_size']} in {where}"
        if (rows[:, 0] != special.cls).any() or (rows[:, -1] != special.sep).any():
            return (
                f"has rows without the tokens cls ({special.cls}) first and sep ({special.sep}) "
                f"last in {where}"
            )
    if len(content) != shard["bytes"]:
        return f"has {len(content):,} bytes, expected {shard['bytes']:,}"
    if (found := hashlib.sha256(content).hexdigest()) != shard["sha256"]:
        return f"has sha256 {found[:12]}…, expected {shard['sha256'][:12]}… (a byte was changed)"
    return None


def read_rows(folder: Folder, shard: dict[str, Any], manifest: dict[str, Any]) -> np.ndarray:
    """All rows [sequences, seq_len] of one shard; PipelineError when it is damaged."""
    name = shard["name"]
    seq_len = manifest["seq_len"]
    dtype = np.dtype(manifest["dtype"])
    rows = [np.empty((0, seq_len), dtype)]
    try:
        for block in shard["blocks"]:
            stop = block["offset"] + block["sequences"] * seq_len * dtype.itemsize
            content = folder.read(name, block["offset"], stop)
            rows.append(np.frombuffer(content, dtype).reshape(block["sequences"], seq_len))
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{folder.path(name)}: can't be read ({error}); see "
            f"`python -m pipeline verify {folder}`"
        ) from error
    return np.concatenate(rows)
