"""Speedrun: the least time in which an encoder learns a fixed corpus to a fixed loss.

    python -m reproduce speedrun [--config TRACK.yaml] [--only ENTRY …] [--seeds N …]

A file like `configs/reproduce/speedrun.yaml` is a track. An entry is a title, the FLOPs it spends,
and what differs from `pretrain`, in groups of pretrain/main.py. Finished runs are skipped; the
results are added to a CSV file with the logs beside it, from which the page is made.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from scipy.stats import ttest_1samp

from benchmarks.machine import processor
from finetune.console import CommandParser
from finetune.files import write_text
from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.provenance import code_state
from reproduce.errors import ReproduceError
from reproduce.late_masking.collect import read_csv, read_json_lines, update
from reproduce.late_masking.experiment import merge, read_yaml_as
from reproduce.late_masking.jobs import ROOT, Job, run_jobs

logger = logging.getLogger(__name__)

CONFIG = Path("configs/reproduce/speedrun.yaml")
LARGEST_P = 0.01
RULES = """\
- The data are those of the track's `corpus`: same text, tokenizer, shards, validation sequences.
  Only times on one data set, by its hash, compare.
- Everything else is free: model, masking, optimizer, batch, length of the run.
- An entry counts if its final validation losses over the seeds lie below `target`: one-sided
  t-test, p < 0.01. The loss is that of `pretrain/evaluate.py`: 15 % of the tokens, always the same,
  all [MASK].
- Its time is wall-clock from the first step to the last, evaluations on the way included (Hugging
  Face's clock stops for them), start-up excluded but for what torch compiles in the first
  step. Entries are compared within one machine and one session: seeds in turn, all entries of a
  seed one after the other, each on all cores."""


@dataclass(kw_only=True)
class Entry:
    """A way to the target."""

    title: str
    """What it is, for the table."""
    flops: float
    """What it spends; its schedules end with it."""
    trainer: Literal["latemask", "huggingface"] = "latemask"
    """pretrain/main.py, or transformers' Trainer with the stock model of the same settings."""
    start: Literal["ours", "stock"] = "ours"
    """The Trainer's initial weights: those of pretrain/main.py, or as transformers draws them."""
    pretrain: dict[str, Any] = field(default_factory=dict)
    """What differs from the track's `pretrain`."""


@dataclass(kw_only=True)
class Track:
    """A machine, a corpus, a target, and who has run."""

    machine: str
    """In words: what an entry may use."""
    corpus: dict[str, Any]
    """Of python -m pipeline, without output."""
    target: float | None
    """Validation loss in nats; null until the first entry has shown what can be reached."""
    seeds: list[int]
    """Of initial weights, order of sequences and masks."""
    pretrain: dict[str, Any]
    """Groups of pretrain/main.py that entries share unless they say otherwise."""
    entries: dict[str, Entry]
    """By name; the first is what times are compared with."""
    note: str = ""
    """What a reader of the record has to know: how target and budgets were chosen."""


@dataclass(frozen=True)
class Attempt:
    """An entry with a seed."""

    name: str
    entry: Entry
    seed: int
    folder: Path

    @property
    def log(self) -> Path:
        """Its evaluations, one a line."""
        ours = self.entry.trainer == "latemask"
        return self.folder / ("metrics.jsonl" if ours else "curve.jsonl")

    @property
    def makes(self) -> Path:
        """There when it is finished."""
        ours = self.entry.trainer == "latemask"
        return self.folder / "hf" / "model.safetensors" if ours else self.log


def attempts_of(
    track: Track, out: Path, only: Sequence[str] | None, seeds: Sequence[int] | None
) -> list[Attempt]:
    """Seed by seed, so that a machine that slows down slows all entries down.

    Raises:
        ReproduceError: an entry or seed that the track doesn't have.
    """
    if unknown := sorted(set(only or []) - track.entries.keys()):
        raise ReproduceError(
            f"--only {' '.join(unknown)}: no such entry; entries: {', '.join(track.entries)}"
        )
    if unknown_seeds := sorted(set(seeds or []) - set(track.seeds)):
        raise ReproduceError(
            f"--seeds {' '.join(map(str, unknown_seeds))}: not among the track's, which are "
            f"{' '.join(map(str, track.seeds))}"
        )
    return [
        Attempt(name, entry, seed, out / "runs" / name / f"seed-{seed}")
        for seed in (seeds or track.seeds)
        for name, entry in track.entries.items()
        if only is None or name in only
    ]


def config_of(track: Track, attempt: Attempt, data: Path) -> dict[str, Any]:
    """All groups of pretrain/main.py."""
    return merge(merge(track.pretrain, attempt.entry.pretrain), {
        "data": {"path": str(data)},
        "budget": {"flops": attempt.entry.flops},
        "run": {"output_dir": str(attempt.folder), "seed": attempt.seed},
    })  # fmt: skip


def corpus_job(track: Track, out: Path) -> Job:
    """The data, where they aren't yet.

    Raises:
        ReproduceError: they are there, but of another corpus.
    """
    data, file = out / "data", out / "corpus.yaml"
    made = data / "manifest.json"
    write_settings(track.corpus | {"output": str(data)}, file, made)
    command = [sys.executable, "-m", "pipeline", "--config", file]
    return Job("data", command, [made], out / "logs" / "data.log")


def write_settings(settings: dict[str, Any], file: Path, made: Path) -> None:
    """Into `file`, unless `made` was made with others: ReproduceError."""
    if made.exists() and file.is_file() and yaml.safe_load(file.read_text()) != settings:
        raise ReproduceError(
            f"{made.parent}: made with other settings than the track has now ({file}); move it "
            "away, or give another --output_dir"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(settings, sort_keys=False))


def job_of(track: Track, attempt: Attempt, out: Path) -> Job:
    """The command that makes an attempt.

    Raises:
        PretrainError: its settings can't work.
        ReproduceError: it has been made, with other settings.
    """
    file = out / "configs" / attempt.name / f"seed-{attempt.seed}.yaml"
    write_settings(config_of(track, attempt, out / "data"), file, attempt.makes)
    load_config(file)
    command: list[object] = [sys.executable, "pretrain/main.py", "--config", file]
    if attempt.entry.trainer == "huggingface":
        command = [sys.executable, "-m", "reproduce.late_masking.peer", file]
        command += ["--start", attempt.entry.start, "--output", attempt.folder]
    log = out / "logs" / attempt.name / f"seed-{attempt.seed}.log"
    return Job(f"{attempt.name}, seed {attempt.seed}", command, [attempt.makes], log)


def result(attempt: Attempt, data: Path) -> dict[str, Any]:
    """How a finished attempt on the data set `data` ended, as a row of the CSV file."""
    evaluations = [
        line for line in read_json_lines(attempt.log) if "valid/loss" in line or "loss" in line
    ]
    last = evaluations[-1]
    commit, clean = code_state(ROOT)
    return {
        "variant": attempt.name, "seed": attempt.seed,
        "seconds": round(3600 * last["hours"], 3),
        "loss": last.get("valid/loss", last.get("loss")),
        "steps": last["step"], "tokens": last["tokens"], "flops": attempt.entry.flops,
        "machine": f"{processor(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))}, "
        f"torch {torch.__version__}",
        "data": ShardFolder(data).sha256,
        "commit": f"{commit or 'unknown'}{'' if clean else ' and changes'}",
    }  # fmt: skip


def standing(track: Track, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each entry with results, the fastest that counts first, those that don't last.

    Times are compared with the first entry's of the same seed and machine; p is of the one-sided
    t-test that the mean final loss lies below the target. Without a target none counts.
    """
    first = {
        (row["seed"], row["machine"]): row["seconds"]
        for row in rows
        if row["variant"] == next(iter(track.entries))
    }
    found = []
    for name, entry in track.entries.items():
        own = [row for row in rows if row["variant"] == name]
        if not own:
            continue
        losses = [row["loss"] for row in own]
        p = 1.0 if track.target is None else p_below(losses, track.target)
        ratios = [
            row["seconds"] / first[key]
            for row in own
            if (key := (row["seed"], row["machine"])) in first
        ]
        found.append({
            "title": entry.title, "seconds": [row["seconds"] for row in own], "ratios": ratios,
            "losses": losses, "p": p, "counts": p < LARGEST_P, "flops": entry.flops,
            "tokens": own[0]["tokens"], "commit": own[0]["commit"][:10],
        })  # fmt: skip
    return sorted(found, key=lambda row: (not row["counts"], statistics.fmean(row["seconds"])))


def p_below(losses: Sequence[float], target: float) -> float:
    """p of the one-sided t-test that their mean lies below `target`; 1 for a single loss."""
    if len(losses) < 2:
        return 1.0
    if len(set(losses)) == 1:
        return 0.0 if losses[0] < target else 1.0
    return float(ttest_1samp(losses, target, alternative="less").pvalue)


def page(track: Track, rows: Sequence[dict[str, Any]], config: Path, results: Path) -> str:
    """The record in Markdown, of a track's file and the folder of its results."""
    machines = sorted({row["machine"] for row in rows})
    data = sorted({f"`{row['data'][:12]}`" for row in rows})
    reference = next(iter(track.entries.values())).title
    target = "that is yet to be set" if track.target is None else f"of {track.target:.2f} nats"
    lines = [
        "# Speedrun", "",
        f"The least time to a validation loss {target}, {track.machine}. Made by "
        f"`python -m reproduce speedrun --config {config}`; each run's log lies in "
        f"`{results.name}/`.", "",
        f"- {'; '.join(machines)}",
        f"- seeds {', '.join(map(str, track.seeds))}; data sets {', '.join(data)}", "",
        f"| entry | seconds, mean [least, most] | of {reference} | final loss | p | tokens | FLOPs "
        "| commit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]  # fmt: skip
    for row in standing(track, rows):
        seconds, ratios = row["seconds"], row["ratios"]
        times = f"{statistics.fmean(seconds):,.0f} [{min(seconds):,.0f}, {max(seconds):,.0f}]"
        ratio = f"**{statistics.fmean(ratios):.2f}**" if ratios else "–"
        p = "–" if track.target is None else format(row["p"], ".1g")
        if not row["counts"]:
            times = f"({times})"
        lines.append(
            f"| {row['title']} | {times} | {ratio} | {statistics.fmean(row['losses']):.4f} | "
            f"{p} | {row['tokens']:,} | {row['flops']:.2g} | {row['commit']} |"
        )
    lines += [
        "", "Times in brackets don't count: the losses aren't below a target with p < 0.01.", "",
        *(["## How this record was made", "", track.note.strip(), ""] if track.note else []),
        "## Rules", "", RULES, "",
        f"To enter, add an entry to `{config}`, run it and the first one with all seeds, and send "
        "the page, the CSV file and the logs.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main(command: Sequence[str]) -> None:
    """Make the data, run what isn't finished, renew the record."""
    parser = CommandParser(prog="python -m reproduce speedrun", description=f"{__doc__}\n{RULES}")
    parser.add_argument("--config", type=Path, default=CONFIG, help="the track's YAML")
    parser.add_argument("--output_dir", type=Path, help="default: runs/, the config's name")
    parser.add_argument("--only", nargs="+", help="these entries alone")
    parser.add_argument("--seeds", nargs="+", type=int, help="these of the track's seeds alone")
    parser.add_argument("--page", type=Path, help="the record; results and logs go to the folder of"
                        " its name; default: docs/, the config's name")  # fmt: skip
    args = parser.parse_args(command)
    track = read_yaml_as(args.config, Track)
    name = args.config.stem
    record: Path = args.page or Path("docs", name).with_suffix(".md")
    out = (args.output_dir or Path("runs", name)).resolve()
    attempts = attempts_of(track, out, args.only, args.seeds)
    results = record.with_suffix("")
    file = results / "results.csv"
    recorded = {(row["variant"], row["seed"]) for row in read_csv(file)}
    # A run that is recorded keeps its row: it was made by the commit that stands there.
    new = [a for a in attempts if not a.makes.exists() or (a.name, a.seed) not in recorded]
    run_jobs([corpus_job(track, out)], parallel=1)
    run_jobs([job_of(track, attempt, out) for attempt in attempts], parallel=1)
    results.mkdir(parents=True, exist_ok=True)
    for attempt in new:
        shutil.copy(attempt.log, results / f"{attempt.name}-{attempt.seed}.jsonl")
    update(file, [result(attempt, out / "data") for attempt in new], list(track.entries))
    text = page(track, read_csv(file), args.config, results)
    write_text(record, text)
    logger.info("wrote %s", record)
    print(text)
