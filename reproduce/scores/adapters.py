"""What trains and stores less than a model: masks, second-stage masks, LoRA, SHiRA, BitFit, IA3.

    python -m reproduce adapters --model_name_or_path M --data_dir DATA --output_dir OUT

Task by task: each method's rates on `--grid_seed`, its best one on `--seed` (as in
`reproduce scores`); then masks over the finetuned models of the same seeds. Then the cost of
a training step: processor time, the variants taking turns in one process, and the peak memory of a
process each. Finished jobs are skipped: the same command resumes where it was stopped. The report
is written after each task to `OUT/adapters.{md,json}`, and at the end to `--report` as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.machine import describe
from finetune.adapters import TRAINED
from finetune.jobs.methods import METHODS
from finetune.jobs.plan import make_plan
from finetune.jobs.train import build_model
from finetune.masks.folder import TENSOR_FILE
from finetune.results.runs import read_runs
from finetune.tasks.kinds import KINDS
from pretrain.memory import peak_resident_gib
from reproduce.scores.adapter_table import report
from reproduce.scores.grid import (
    chosen_rates,
    glue,
    glue_flags,
    make_parser,
    run_grid,
    run_seeds,
    task_names,
)

CONFIG = Path("configs/reproduce/minilm_adapters.yaml")
SECOND_STAGE = Path("configs/reproduce/minilm_second_stage.yaml")
SECOND_STAGE_NAME = "mask, second stage"
MODEL_FILE = "model.safetensors"
WARM_UP, BATCHES = 2, 8


@dataclass(frozen=True)
class Stage:
    """A config and the folder of its runs; the report calls its methods by `rename`."""

    config: Path
    folder: Path
    rename: dict[str, str]

    def runs(self) -> Iterator[dict]:
        """A record of each seed's run that this stage has finished."""
        if not (self.folder / "seeds").is_dir():
            return
        grid = self.folder / "grid"
        tried: dict[tuple[str, str], set[float]] = defaultdict(set)
        for run in read_runs(grid):
            if run.learning_rate is not None:
                tried[run.task, run.method].add(run.learning_rate)
        chosen = {task: chosen_rates(grid, task) for task in task_names(self.config)}
        for run in read_runs(self.folder / "seeds"):
            if run.folder.parent.is_symlink():
                continue  # the first stage's
            metric, score = next(iter(run.metrics.items()))
            yield {
                "task": run.task,
                "method": self.rename.get(run.method, run.method),
                "seed": run.seed,
                "metric": metric,
                "score": score,
                "learning_rate": chosen[run.task][run.method],
                "grid": sorted(tried[run.task, run.method]),
                "bytes": stored_bytes(run.folder),
            }


def stored_bytes(job: Path) -> int:
    """Size of what a finished job learned; a few hundred bytes of JSON beside it don't count."""
    names = (TENSOR_FILE, TRAINED, MODEL_FILE)
    return next((job / name).stat().st_size for name in names if (job / name).is_file())


def place_finetuned(first: Stage, second: Stage, task: str) -> None:
    """Links to the finetuned models where the second stage's `--start_from TASK` looks for them."""
    rate = chosen_rates(first.folder / "grid", task)["finetune"]
    job = Path(task) / "finetune"
    targets = {"grid": Path("grid") / job / f"lr-{rate:g}", "seeds": Path("seeds") / job}
    for part, target in targets.items():
        link = second.folder / part / job
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((first.folder / target).resolve(), target_is_directory=True)


def make_step(words: Sequence[object]) -> Callable[[int], None]:
    """A training step of the one job that the flags `words` name, on its n-th batch."""
    plan = make_plan([str(word) for word in words])
    ((job, *_),) = plan.rounds
    encoded = plan.inputs.encoded(job)
    model, _ = build_model(job, plan.inputs.backbone, encoded)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)  # the Trainer's default
    collate = KINDS[encoded.data.task.kind].collator(plan.inputs.backbone.tokenizer)
    size = job.training["per_device_train_batch_size"]

    def step(number: int) -> None:
        rows = [encoded.train[number * size + index] for index in range(size)]
        batch = {name: value.to(device) for name, value in collate(rows).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=job.training["bf16"]):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def cases(args: argparse.Namespace, stages: Sequence[Stage], out: Path) -> dict[str, list[object]]:
    """Variant → flags of one of its jobs, on the first task."""
    found = {}
    for stage in stages:
        task = task_names(stage.config)[0]
        for method in METHODS:
            if not (stage.folder / "seeds" / task / method / f"seed-{args.seed[0]}").is_dir():
                continue
            if (stage.folder / "seeds" / task / method).is_symlink():
                continue
            words = [*glue_flags(args, stage.config), "--task_name", task, "--method", method]
            words += ["--output_dir", out, "--seed", args.seed[0], "--learning_rate", 1e-4]
            if stage.rename:
                start = stage.folder / "seeds" / task / "finetune" / f"seed-{args.seed[0]}"
                words += ["--start_from", start]
            found[stage.rename.get(method, method)] = words
    return found


def measure_cost(args: argparse.Namespace, stages: Sequence[Stage]) -> list[dict]:
    """Seconds of processor time of a step, and peak memory, of each variant."""
    with tempfile.TemporaryDirectory() as name:
        found = cases(args, stages, Path(name))
        steps = {case: make_step(words) for case, words in found.items()}
        clock = time.perf_counter if torch.cuda.is_available() else time.process_time
        seconds: dict[str, list[float]] = {case: [] for case in steps}
        for number in range(WARM_UP + BATCHES):
            for case, step in steps.items():
                begin = clock()
                step(number)
                if number >= WARM_UP:
                    seconds[case].append(clock() - begin)
        del steps
        records = []
        for case, words in found.items():
            command = [sys.executable, "-m", "reproduce", "adapters", "--memory_of"]
            command += map(str, words)
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            records.append(
                {
                    "method": case,
                    "seconds": statistics.median(seconds[case]),
                    "peak_mib": float(done.stdout.splitlines()[-1]),
                }
            )
    return records


def memory_of(words: Sequence[str]) -> float:
    """Peak MiB of a process that takes some steps and does nothing else; of a GPU, its own."""
    step = make_step(words)
    for number in range(BATCHES):
        step(number)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return 2**10 * peak_resident_gib()


def write_report(
    args: argparse.Namespace, stages: Sequence[Stage], paths: Sequence[Path], cost: list[dict]
) -> None:
    """`.json` with every figure, `.md` with the table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {
        "machine": describe(device),
        "grid_seed": args.grid_seed,
        "runs": [record for stage in stages for record in stage.runs()],
        "cost": cost,
    }
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(report(found), encoding="utf-8")


def main(command: Sequence[str]) -> None:
    """Run what isn't finished, and report."""
    if command[:1] == ["--memory_of"]:
        print(memory_of(command[1:]))
        return
    parser = make_parser("adapters", __doc__, CONFIG, grid_seed=4)
    parser.add_argument("--second_stage", type=Path, default=SECOND_STAGE, help="its config")
    parser.add_argument("--report", type=Path, help="a second place for the report, a .md")
    args = parser.parse_args(command)
    first = Stage(args.config, args.output_dir / "first", {})
    second = Stage(args.second_stage, args.output_dir / "second", {"mask": SECOND_STAGE_NAME})
    stages = (first, second)
    paths = [args.output_dir / "adapters.md", *([args.report] if args.report else [])]
    for task in task_names(first.config):
        for stage in stages:
            flags = glue_flags(args, stage.config)
            if stage is second:
                place_finetuned(first, second, task)
            run_grid(flags, stage.folder, task, args.grid_seed)
            run_seeds(flags, stage.folder, task, args.grid_seed, args.seed)
            glue("table", stage.folder / "seeds")
        write_report(args, stages, paths[:1], [])
    file = args.output_dir / "cost.json"
    if not file.is_file():
        cost = json.dumps(measure_cost(args, stages), indent=1)
        file.write_text(cost + "\n", encoding="utf-8")
    write_report(args, stages, paths, json.loads(file.read_text(encoding="utf-8")))
