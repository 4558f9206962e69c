"""From run folders to the small CSV files that are checked in: the record is made of these alone.

runs.csv        variant, seed, machine, settings (a hash), commit: where each run was made, of what
curves.csv      variant, seed, step, tokens, flops, hours, loss, accuracy: each evaluation at the
                frozen corruption (15 %, all [MASK]; pretrain/evaluate.py)
lines.csv       name, loss: unigram and bigram on the same targets
peer.csv        as curves.csv, of Hugging Face's Trainer, and its precision
downstream.csv  variant, seed, task, metric, finetuning_seed, value, settings (a hash)
about.csv       name, value: size, training text, the head's share of the FLOPs

A record may grow in several places: what is found here replaces the rows of the same variant and
seed (and task and seed of finetuning), all others stay. record.py leaves out what was made with
settings that have changed since.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import processor
from finetune.errors import FinetuneError
from finetune.files import write_text
from finetune.results.cells import collect as collect_cells
from finetune.results.cells import headline
from pretrain.data import ShardFolder
from pretrain.evaluate import (
    evaluation_batches,
    evaluation_masking,
    unigram_log_frequencies,
    unigram_loss,
)
from pretrain.flops import VANILLA, executed_flops
from pretrain.masking import IGNORE
from pretrain.recipe import MaskingConfig, ModelConfig
from reproduce.late_masking.bigram import Bigram, neighbours
from reproduce.late_masking.experiment import (
    PEERS,
    Experiment,
    Run,
    check_unchanged,
    config_of,
    finetuning_settings,
    model_of,
    runs_of,
    settings_of,
)
from reproduce.weight_masks.finding import to_csv

MAX_BIGRAM_SEQUENCES = 200_000
FORMER_COLUMNS = {"arm": "variant"}  # of records that were made with earlier commits


def collect(experiment: Experiment, out: Path, results: Path) -> None:
    """Bring the results that there are in `out` into the CSV files in `results`."""
    results.mkdir(parents=True, exist_ok=True)
    runs = [run for run in runs_of(experiment, out) if run.finished]
    if not runs:
        return
    for run in runs:
        check_unchanged(run, config_of(experiment, run, out), out)
    variants = [*experiment.variants, *PEERS.values()]
    update(results / "curves.csv", [point for run in runs for point in curve(run)], variants)
    data = ShardFolder(out / "data")
    lines = reference_lines(data, experiment.pretrain["run"]["eval_sequences"])
    write_csv(results / "lines.csv", [{"name": n, "loss": value} for n, value in lines.items()])
    peers = [
        {"variant": PEERS[file.parts[-3]]} | point
        for file in sorted((out / "peer").glob("*/seed-*/curve.jsonl"))
        for point in read_json_lines(file)
    ]
    update(results / "peer.csv", peers, variants)
    chosen = [run for run in runs if run.variant in experiment.downstream.variants]
    finetuning = {"settings": finetuning_settings(experiment)}
    scores = [score | finetuning for run in chosen for score in downstream(out, run)]
    update(results / "downstream.csv", scores, variants, ("task", "finetuning_seed"))
    made = dict.fromkeys(
        [(run.variant, run.seed) for run in runs]
        + [(point["variant"], point["seed"]) for point in peers]
    )
    machine = processor(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    machine += f", torch {torch.__version__}"
    commits = {(run.variant, run.seed): commit_of(run) for run in runs}
    update(results / "runs.csv", [
        {"variant": a, "seed": s, "machine": machine, "settings": settings_of(experiment, a),
         "commit": commits.get((a, s), "")}
        for a, s in made
    ], variants)  # fmt: skip
    manifest, model = data.manifest, model_of(experiment, data)
    about = {
        "size": experiment.size,
        "training tokens": f"{manifest['splits']['train']['tokens']:,}",
        "sources": ", ".join(manifest["counts"]["sources"]),
        "head's share": f"{head_share(model, data.seq_len):.1%}",
        "head's share, base": f"{head_share(ModelConfig(vocab_size=50265), 128):.1%}",
    }
    write_csv(results / "about.csv", [{"name": n, "value": v} for n, v in about.items()])


def commit_of(run: Run) -> str:
    """The commit with which a run was begun; the prefix keeps it from being read as a number."""
    first, *_ = read_json_lines(run.folder / "starts.jsonl")
    return f"git:{first['commit'][:10]}" if first["commit"] else ""


def head_share(model: ModelConfig, seq_len: int) -> float:
    """The vocabulary head's part of vanilla 15 %'s executed FLOPs."""
    parts = executed_flops(model, VANILLA, seq_len)
    return parts["head"] / sum(parts.values())


def curve(run: Run) -> list[dict[str, Any]]:
    """The evaluations of a run, in order."""
    return [
        {
            "variant": run.variant, "seed": run.seed, "step": record["step"],
            "tokens": record["tokens"], "flops": record["flops"], "hours": record["hours"],
            "loss": record["valid/loss"], "accuracy": record["valid/accuracy"],
        }
        for record in read_json_lines(run.folder / "metrics.jsonl")
        if "valid/loss" in record
    ]  # fmt: skip


def reference_lines(data: ShardFolder, sequences: int) -> dict[str, float]:
    """Unigram and bigram loss on the targets of the evaluations."""
    train, valid = data.sequences("train"), data.sequences("valid")
    sequences = min(sequences, len(valid))
    (batch,) = evaluation_batches(
        valid, evaluation_masking(MaskingConfig()), data.vocabulary,
        batch_size=sequences, sequences=sequences,
    )  # fmt: skip
    frequencies = unigram_log_frequencies(train, data.vocabulary)
    picked = np.linspace(0, len(train) - 1, min(len(train), MAX_BIGRAM_SEQUENCES)).astype(np.int64)
    bigram = Bigram(train[picked], frequencies)
    positions = batch.position_ids[:, -batch.labels.shape[1] :]
    predicted = [p[labels != IGNORE] for p, labels in zip(positions, batch.labels, strict=True)]
    left, right = neighbours(valid[np.arange(sequences)], predicted)
    return {"unigram": unigram_loss([batch], frequencies), "bigram": bigram.loss(left, right)}


def downstream(out: Path, run: Run) -> list[dict[str, Any]]:
    """Each task's headline metric with each seed of finetuning."""
    try:
        cells = collect_cells(out / "downstream" / run.variant / f"seed-{run.seed}")
    except FinetuneError:
        return []
    return [
        {
            "variant": run.variant,
            "seed": run.seed,
            "task": c.task,
            "metric": c.metric,
            "finetuning_seed": seed,
            "value": value,
        }
        for c in cells
        if c.metric == headline(c.task, cells)
        for seed, value in zip(c.seeds, c.values, strict=True)
    ]


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    """Every line of `file`."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def update(
    file: Path,
    found: Sequence[Mapping[str, Any]],
    variants: Sequence[str],
    parts: Sequence[str] = (),
) -> None:
    """Write `found` over what `file` has of the same runs; in the order of `variants`, seeds.

    `parts` are columns that tell results of one run apart, each of which is replaced by itself.
    """
    key = itemgetter("variant", "seed", *parts)
    here = set(map(key, found))
    columns = dict.fromkeys(found[0], "") if found else {}  # some came later than the file
    kept = [row for row in (columns | row for row in read_csv(file)) if key(row) not in here]
    places = {variant: place for place, variant in enumerate(variants)}
    if found:
        write_csv(file, sorted(
            [*found, *kept], key=lambda row: (places.get(row["variant"], len(places)), row["seed"])
        ))  # fmt: skip


def write_csv(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Whole or not at all: the columns are those of the first row; floats with six digits."""
    write_text(file, to_csv(list(rows)))


def read_csv(file: Path) -> list[dict[str, Any]]:
    """The rows with numbers as numbers; none if there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {FORMER_COLUMNS.get(name, name): _number(value) for name, value in row.items()}
            for row in csv.DictReader(stream)
        ]


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
