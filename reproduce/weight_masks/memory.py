"""Parameters and bytes against the number of tasks (paper, figure 3).

Three ways to keep t tasks: t finetuned copies in fp32; one backbone and t masks of a bit a weight;
one backbone and t masks at the entropy of their share of zeros. Heads are not counted, as the paper
has it. Where finished runs are given, the sizes of their files (with the heads they hold) follow as
series of their own, tasks in the order of their names.
"""

import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, BertConfig

from finetune.errors import FinetuneError
from finetune.masks import MaskConfig
from finetune.masks.coding import entropy_bits
from finetune.masks.folder import TENSOR_FILE, MaskFolder
from finetune.masks.identity import base_prefix
from finetune.masks.targets import default_targets
from finetune.results.runs import Run, read_runs
from finetune.tasks.encode import Backbone
from reproduce.weight_masks.finding import Finding, publish, verdict
from reproduce.weight_masks.flags import FigureFlags, read_command
from reproduce.weight_masks.picture import legend_below, panels

BERT = "BERT-base"
BYTES = 4  # of an fp32 weight
MEGA = 1e6
STORAGE = {
    "finetuned": ("finetuned copies", "C1"),
    "masks, bits": ("a backbone, masks of a bit a weight", "C0"),
    "masks, coded": ("a backbone, masks entropy-coded", "C2"),
}
# The paper's megabytes: (storage, tasks).
PAPER = {("finetuned", 11): 4817, ("masks, bits", 1): 447, ("masks, bits", 11): 536}


@dataclass
class MemoryFlags(FigureFlags):
    """What is counted."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "encoder whose weights are counted; default BERT-base's"}
    )
    runs: Path | None = field(
        default=None,
        metadata={
            "help": "output folder of `finetune.glue`, whose files are measured; default "
            "OUTPUT_DIR/runs, if there is one"
        },
    )
    tasks: int = field(default=11, metadata={"help": "number of tasks to count up to"})
    zeros: float = field(default=0.05, metadata={"help": "share of zeros of the coded masks"})


@dataclass(frozen=True)
class Encoder:
    """Numbers of weights: all of the encoder's, and those that a mask covers by default."""

    name: str
    parameters: int
    masked: int


def main(command: Sequence[str]) -> None:
    """The subcommand. It reads none of `finetune.glue`'s flags but the model."""
    flags, _ = read_command("memory", MemoryFlags, command, __doc__)
    if flags.tasks < 1:
        raise FinetuneError(f"--tasks: found {flags.tasks}, expected 1 or more.")
    encoder = count(flags.model_name_or_path)
    rows = list(arithmetic(encoder, flags.tasks, flags.zeros))
    runs = flags.runs or flags.output_dir / "runs"
    if flags.runs is not None or runs.is_dir():
        rows += measured(read_runs(runs), encoder)
    publish(flags.output_dir, conclude(rows, encoder), rows, draw(rows))


def count(name: str | None) -> Encoder:
    """The encoder's weights, from its configuration alone."""
    config = BertConfig() if name is None else Backbone.load(name).config
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    base = model.get_submodule(base_prefix(model))
    covered = default_targets(MaskConfig(mask_classifier=False), model)
    return Encoder(
        BERT if name is None else config.model_type,
        sum(p.numel() for p in base.parameters()),
        sum(m.weight.numel() for n, m in model.named_modules() if re.fullmatch(covered, n)),
    )


def arithmetic(encoder: Encoder, tasks: int, zeros: float) -> Iterator[dict[str, Any]]:
    """Rows of the three ways for 1 to `tasks` tasks."""
    copy = BYTES * encoder.parameters
    each = {
        "finetuned": (0, encoder.parameters, copy),
        "masks, bits": (1, encoder.masked, encoder.masked / 8),
        "masks, coded": (1, encoder.masked, entropy_bits(encoder.masked, zeros) / 8),
    }
    for storage, (backbones, values, size) in each.items():
        for number in range(1, tasks + 1):
            yield {
                "source": "arithmetic",
                "storage": storage,
                "tasks": number,
                "parameters": backbones * encoder.parameters + number * values,
                "bytes": round(backbones * copy + number * size),
            }


def measured(runs: Sequence[Run], encoder: Encoder) -> Iterator[dict[str, Any]]:
    """Rows of the runs' files, one task after another, each the median over its seeds."""
    sizes: dict[str, dict[str, list[tuple[int, int]]]] = {storage: {} for storage in STORAGE}
    for run in runs:
        if run.method == "finetune":
            file = run.folder / "model.safetensors"
            if not file.is_file():
                raise FinetuneError(f"{file}: no such file; expected a finetuned model.")
            with safe_open(file, framework="np") as tensors:
                shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
            values = sum(map(math.prod, shapes))
            sizes["finetuned"].setdefault(run.task, []).append((values, file.stat().st_size))
        elif run.method == "mask":
            folder = MaskFolder.open(run.folder)
            bits = [math.prod(folder.shape(name)) for name in folder.kinds]
            head = sum(tensor.nbytes for tensor in folder.own().values())
            found = {
                "masks, bits": sum(-(-count // 8) for count in bits) + head,
                "masks, coded": (run.folder / TENSOR_FILE).stat().st_size,
            }
            for storage, size in found.items():
                sizes[storage].setdefault(run.task, []).append((sum(bits), size))
    for storage, tasks in sizes.items():
        backbones = int(storage != "finetuned")
        values, size = backbones * encoder.parameters, backbones * BYTES * encoder.parameters
        for number, task in enumerate(sorted(tasks), start=1):
            counts, bytes_ = zip(*tasks[task], strict=True)
            values += round(statistics.median(counts))
            size += round(statistics.median(bytes_))
            yield {
                "source": "files",
                "storage": storage,
                "tasks": number,
                "parameters": values,
                "bytes": size,
            }


def conclude(rows: Sequence[dict[str, Any]], encoder: Encoder) -> Finding:
    """The finding from the rows of the CSV."""
    counted = {(r["storage"], r["tasks"]): r["bytes"] for r in rows if r["source"] == "arithmetic"}
    last = max(tasks for _, tasks in counted)
    seen = "; ".join(
        f"{storage}: {counted[storage, 1] / MEGA:.1f} MB for 1 task, "
        f"{counted[storage, last] / MEGA:.1f} for {last}"
        for storage in STORAGE
    )
    files = [row for row in rows if row["source"] == "files"]
    for storage in STORAGE:
        of_files = [row for row in files if row["storage"] == storage]
        if of_files:
            row = of_files[-1]
            seen += f"; files of {row['tasks']} tasks, {storage}: {row['bytes'] / MEGA:.1f} MB"
    holds: list[bool | None] = []
    if encoder.name == BERT:
        holds = [
            round(counted[key] / MEGA) == megabytes
            for key, megabytes in PAPER.items()
            if key in counted
        ]
    else:
        holds = [
            (counted["masks, bits", n] < counted["finetuned", n]) == (n > 1)
            for n in range(1, last + 1)
        ]
    return Finding(
        "memory",
        "From two tasks on, a backbone and a mask per task take less memory than finetuned copies.",
        "Figure 3, BERT-base: 447 MB for one task, 536 MB for eleven, against 4817 MB.",
        seen,
        f"{encoder.name}, {encoder.parameters:,} weights, {encoder.masked:,} of them masked",
        "BERT-base: the paper's figures to the megabyte; others: less from two tasks on.",
        verdict(holds),
    )


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Parameters and megabytes side by side; files as crosses."""
    figure, axes = panels(["parameters, a bit counted as one", "memory"])
    for axis, (column, unit) in zip(
        axes[0], {"parameters": 1e6, "bytes": MEGA}.items(), strict=True
    ):
        for storage, (label, colour) in STORAGE.items():
            if column == "parameters" and storage == "masks, coded":
                continue  # as many as bits
            found = [row for row in rows if row["storage"] == storage]
            for source, style in (("arithmetic", "-"), ("files", "x")):
                points = [r for r in found if r["source"] == source]
                x, y = [r["tasks"] for r in points], [r[column] / unit for r in points]
                axis.plot(x, y, style, color=colour, label=label if style == "-" else None)
        axis.set(xlabel="tasks", ylim=(0, None))
    axes[0, 0].set_ylabel("millions")
    axes[0, 1].set_ylabel("MB")
    legend_below(figure, axes[0, 1])
    return figure
