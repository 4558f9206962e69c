"""Mask folders in words: what one is, where two differ, and the plain model that one makes."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from finetune.adapters import load_backbone
from finetune.errors import FinetuneError
from finetune.masks.apply import load_masked
from finetune.masks.coding import entropy_bits
from finetune.masks.folder import MaskFolder


def info(folders: Sequence[MaskFolder]) -> Iterator[str]:
    """Lines about each folder; decodes, and so verifies, all of it."""
    for folder in folders:
        folder.verify()
        config = folder.config
        rows: list[tuple[str, int, int, int]] = []
        for name, coded in folder.coded():
            zeros = folder.dropped(name, coded).size
            rows.append((name, math.prod(folder.shape(name)), zeros, coded.nbytes))
        _, counts, dropped, sizes = zip(*rows, strict=True)
        count, zeros, size = sum(counts), sum(dropped), sum(sizes)
        bound = sum(entropy_bits(n, z / n) for _, n, z, _ in rows) / 8
        yield f"{folder.path}: task {config.task}, labels {', '.join(config.labels or ['–'])}"
        yield f"  backbone   {config.base_model_name_or_path}, weights {config.base_sha256}"
        yield f"  learned    {config.binarizer}, {config.init}, {config.granularity}, "
        yield f"             p0 {config.initial_sparsity:g}, seed {config.seed}"
        yield f"  masks      {len(rows)} of {count:,} bits, {zeros / count:.2%} zeros"
        yield (
            f"  size       {size:,} bytes, {8 * size / count:.3f} bits a weight, "
            f"{size / max(bound, 1):.3f} of n H(p); and {_bytes(folder.own()):,} of the head"
        )
        width = max(len(row[0]) for row in rows)
        yield f"  {'layer':{width}}  {'bits':>10}  {'zeros':>7}  {'bytes':>9}  of n H(p)"
        for name, n, z, coded_size in rows:
            least = entropy_bits(n, z / n) / 8
            ratio = f"{coded_size / least:.3f}" if least else "–"
            yield f"  {name:{width}}  {n:>10,}  {z / n:>7.2%}  {coded_size:>9,}  {ratio}"


def _bytes(tensors: dict) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def diff(first: MaskFolder, second: MaskFolder) -> Iterator[str]:
    """Lines on where two masks differ: share of differing bits, and overlap of their zeros."""
    if first.config.base_sha256 != second.config.base_sha256:
        raise FinetuneError(
            f"The masks belong to different weights: {first.path} to\n"
            f"  {first.config.base_sha256}, {second.path} to\n  {second.config.base_sha256}."
        )
    shared = [name for name in first.kinds if name in second.kinds]
    for one, other in ((first, second), (second, first)):
        only = [name for name in one.kinds if name not in other.kinds]
        if only:
            yield f"only in {one.path}: {', '.join(only)}"
    total, differing = 0, 0
    others = dict(_of(second, shared))
    width = max(map(len, shared), default=5)
    yield f"{'layer':{width}}  differing  zeros in common / in either"
    for name, a in _of(first, shared):
        b = others.pop(name)
        if a.shape != b.shape:
            raise FinetuneError(f"Mask {name}: shapes {a.shape} and {b.shape} differ.")
        unequal = int(np.count_nonzero(a != b))
        either = int(np.count_nonzero(~(a & b)))
        common = int(np.count_nonzero(~(a | b)))
        total, differing = total + a.size, differing + unequal
        yield f"{name:{width}}  {unequal / a.size:>9.3%}  {common / max(either, 1):.1%}"
    yield f"{'all':{width}}  {differing / max(total, 1):>9.3%}"


def _of(folder: MaskFolder, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    return ((name, mask) for name, mask in folder.masks() if name in names)


def merge(folder: MaskFolder, output: Path, backbone: str | None) -> str:
    """Write the model with the mask applied, loadable by stock transformers."""
    found = load_backbone(folder.path, backbone, "--model_name_or_path")
    load_masked(folder, found.name).save_pretrained(output)
    found.tokenizer.save_pretrained(output)
    return f"{output}: {folder.name}, merged into {found.name}"
