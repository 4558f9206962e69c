"""Dissimilarity of two tasks' masks, by block and matrix (paper, figure 5).

s = ‖M1 - M2‖₁ / (‖M1 - M1⁰‖₁ + ‖M2 - M2⁰‖₁), over the bits of one matrix; M⁰ is the mask that
training began with, which depends on the seed alone and is drawn again here. Two runs of one seed
began alike, so s is 0 for equal masks and 1 where no bit was flipped by both. The claim holds for a
pair of tasks if s over the matrices of its uppermost masked block is above that of the lowest, in
the median of the seeds.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from peft import get_peft_model
from transformers import AutoConfig

from finetune.choices import MATRICES
from finetune.errors import FinetuneError
from finetune.masks.apply import auto_class, from_checkpoint, head_fields
from finetune.masks.architectures import find_blocks
from finetune.masks.folder import MaskFolder
from finetune.masks.layer import MaskedLinear
from finetune.masks.method import WRAPPED
from reproduce.weight_masks.finding import Finding, publish, verdict
from reproduce.weight_masks.flags import RunFlags, read_command
from reproduce.weight_masks.parts import once
from reproduce.weight_masks.picture import heat, wrapped_panels
from reproduce.weight_masks.runs import obtain

# What two masks have to share for s to be a comparison of what was learned.
START = ("seed", "init", "initial_sparsity", "binarizer", "threshold", "init_scale", "granularity")
POOLER = "pooler"


def main(command: Sequence[str]) -> None:
    """The subcommand."""
    flags, words = read_command("dissimilarity", RunFlags, command, __doc__)
    runs = obtain(words, ["mask"], flags.runs, flags.output_dir)
    if len(runs.tasks) < 2:
        raise FinetuneError(f"--task_name: found {runs.tasks}, expected two tasks or more.")
    rows: list[dict[str, Any]] = []
    for seed in runs.seeds:
        for pair in combinations(runs.tasks, 2):
            identity = {task: runs.identity(task, "mask", seed) for task in pair}
            first, second = (MaskFolder.open(runs.jobs[t, "mask", seed].folder) for t in pair)
            found = once(
                flags.output_dir / "parts",
                f"dissimilarity-{'-'.join(pair)}-seed-{seed}",
                identity,
                partial(compare, first, second, runs.inputs.model),
            )
            rows += [{"tasks": " / ".join(pair), "seed": seed, **row} for row in found]
    publish(flags.output_dir, conclude(rows, runs.setting), rows, draw(rows))


def compare(first: MaskFolder, second: MaskFolder, backbone: str) -> list[dict[str, Any]]:
    """A row per matrix that both mask: differing and flipped bits, and s (None without a flip).

    Raises FinetuneError for masks of other weights or of another start; heads are not compared.
    """
    require_one_start(first, second)
    places = dict(named_places(first, backbone))
    started = dict(initial_masks(first, backbone))
    others = {name: mask for name, mask in second.masks() if name in places}
    rows: list[dict[str, Any]] = []
    for name, mask in first.masks():
        if name not in others:
            continue
        other, start = others.pop(name), started[name]
        block, matrix = places[name]
        differing = int(np.count_nonzero(mask != other))
        flips = int(np.count_nonzero(mask != start)), int(np.count_nonzero(other != start))
        rows.append(
            {
                "block": block,
                "matrix": matrix,
                "bits": mask.size,
                "differing": differing,
                "flipped_first": flips[0],
                "flipped_second": flips[1],
                "s": differing / sum(flips) if sum(flips) else None,
            }
        )
    return rows


def require_one_start(first: MaskFolder, second: MaskFolder) -> None:
    """FinetuneError unless both began with one mask on one backbone."""
    for name in ("base_sha256", *START):
        found = getattr(first.config, name), getattr(second.config, name)
        if found[0] != found[1]:
            what = "weights" if name == "base_sha256" else f"a {name}"
            raise FinetuneError(
                f"The masks began differently, with {what} of {found[0]} ({first.path}) and "
                f"{found[1]} ({second.path}); their dissimilarity would not be what they learned."
            )


def initial_masks(folder: MaskFolder, backbone: str) -> Iterator[tuple[str, np.ndarray]]:
    """(layer, the mask its training began with), drawn again from the seed.

    FinetuneError if the backbone has other weights than those the mask was learned on.
    """
    config = folder.config
    auto = auto_class(config.model_class)
    base = from_checkpoint(auto, backbone, **head_fields(folder))
    unlearned = dataclasses.replace(
        config, inference_mode=False, base_model_name_or_path=None, shapes=None, sparsity=None
    )
    for name, layer in get_peft_model(base, unlearned).named_modules():
        if isinstance(layer, MaskedLinear):
            mask = layer.mask("default")
            if mask is not None:
                yield name.removeprefix(WRAPPED), mask.numpy()


def named_places(folder: MaskFolder, backbone: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """(layer, (block or `pooler`, matrix)) of the layers that aren't the head's."""
    with torch.device("meta"):
        auto = auto_class(folder.config.model_class)
        blocks = find_blocks(auto.from_config(AutoConfig.from_pretrained(backbone)))
    for layer in folder.kinds:
        place = blocks.place(layer)
        if place is not None and place[1]:
            yield layer, (str(place[0]), place[1])
        elif layer.endswith("pooler.dense"):
            yield layer, (POOLER, POOLER)


def of_block(rows: Sequence[dict[str, Any]], block: str) -> float | None:
    """s over all matrices of a block, the median over seeds; None without any flip."""
    values = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        found = [row for row in rows if (row["seed"], row["block"]) == (seed, block)]
        flips = sum(row["flipped_first"] + row["flipped_second"] for row in found)
        if flips:
            values.append(sum(row["differing"] for row in found) / flips)
    return statistics.median(values) if values else None


def blocks_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Masked blocks, the lowest first."""
    return sorted({row["block"] for row in rows if row["block"] != POOLER}, key=int)


def conclude(rows: Sequence[dict[str, Any]], setting: str) -> Finding:
    """The finding from the rows of the CSV."""
    holds: list[bool | None] = []
    seen = []
    for tasks in dict.fromkeys(row["tasks"] for row in rows):
        found = [row for row in rows if row["tasks"] == tasks]
        low, high = blocks_of(found)[0], blocks_of(found)[-1]
        below, above = of_block(found, low), of_block(found, high)
        if below is None or above is None or low == high:
            holds.append(None)
            seen.append(f"{tasks}: nothing to compare")
            continue
        holds.append(above > below)
        seen.append(f"{tasks}: s {below:.3f} in block {low}, {above:.3f} in block {high}")
    return Finding(
        "dissimilarity",
        "Masks of two tasks differ more in upper blocks, which are more specific to the task.",
        "Figure 5, s of matrix O in blocks 2 and 11 of BERT, for pairs of its tasks.",
        "; ".join(seen),
        setting,
        "s over all matrices of the uppermost masked block above that of the lowest, medians over "
        "seeds.",
        verdict(holds),
    )


def _order(matrix: str) -> int:
    """Q before K; a fused matrix where its first part stands."""
    return [matrix.startswith(name) for name in MATRICES].index(True)


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """A heat map of s per pair of tasks, medians over seeds; one scale for all."""
    pairs = list(dict.fromkeys(row["tasks"] for row in rows))
    blocks = blocks_of(rows)
    matrices = sorted({row["matrix"] for row in rows} - {POOLER}, key=_order)
    values = np.full((len(pairs), len(matrices), len(blocks)), np.nan)
    for index in np.ndindex(values.shape):
        place = pairs[index[0]], matrices[index[1]], blocks[index[2]]
        found = [
            row["s"]
            for row in rows
            if (row["tasks"], row["matrix"], row["block"]) == place and row["s"] is not None
        ]
        if found:
            values[index] = statistics.median(found)
    figure, axes = wrapped_panels(pairs)
    known = values[~np.isnan(values)]
    limits = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    for axis, cells in zip(axes, values, strict=True):
        heat(axis, cells, matrices, blocks, limits, cells)
        axis.set_xlabel("block")
    axes[0].set_ylabel("matrix")
    return figure
