"""What masks cost: a training step and a file.

    python -m benchmarks.masks [--only step memory file] [--repeats 3]

BERT-base with random weights, masks with 5 % zeros on blocks 2-11, the pooler and the head, against
full finetuning with AdamW and LoRA adapters (peft, r = 8 on query and value).
Cases of one table are interleaved, medians with the spread between the quickest and the slowest;
memory is a process of its own per case. Parts measured before on the same machine stay in
`docs/benchmarks/masks-DEVICE.{json,md}`.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import get_peft_model
from transformers import Adafactor

from benchmarks.machine import describe, timed
from benchmarks.mask_models import lora, make_model, write_masks
from benchmarks.mask_table import table
from finetune.masks import MaskConfig
from finetune.masks.coding import entropy_bits
from finetune.masks.folder import TENSOR_FILE, MaskFolder
from pretrain.memory import peak_resident_gib

logger = logging.getLogger("benchmarks.masks")

PARTS = ("step", "memory", "file")
OUT = Path("docs/benchmarks")
BATCH, LENGTH = 32, 128
ADAMW, ADAFACTOR = "AdamW", "Adafactor"
# name → (method, mask settings, optimizer, bf16)
STEPS: dict[str, tuple[str, dict, str, bool]] = {
    "finetuning": ("finetune", {}, ADAMW, False),
    "mask, AdamW": ("mask", {}, ADAMW, False),
    "mask, Adafactor": ("mask", {}, ADAFACTOR, False),
    "mask, Adafactor, 4 recomputed": ("mask", {"recompute_blocks": 4}, ADAFACTOR, False),
    "LoRA": ("lora", {}, ADAMW, False),
    "finetuning, bf16 autocast": ("finetune", {}, ADAMW, True),
    "mask, bf16 weights, Adafactor": ("mask", {"frozen_dtype": "bfloat16"}, ADAFACTOR, True),
    "mask, bf16 weights, Adafactor, 4 recomputed": (
        "mask",
        {"frozen_dtype": "bfloat16", "recompute_blocks": 4},
        ADAFACTOR,
        True,
    ),
}


def make_step(name: str, device: torch.device) -> Callable[[], None]:
    """One training step of variant `name`: forward, backward, update."""
    method, settings, optimizer_name, bf16 = STEPS[name]
    model: torch.nn.Module = make_model()
    if method != "finetune":
        model = get_peft_model(model, MaskConfig(**settings) if method == "mask" else lora())
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if optimizer_name == ADAMW:
        optimizer = torch.optim.AdamW(trained, 1e-3, weight_decay=0.0)
    else:  # as `--optim adafactor` sets it: no momentum, factored second moments, the given rate
        optimizer = Adafactor(trained, lr=1e-3, scale_parameter=False, relative_step=False)
    # The optimizer's state, which else the first step would make: a step's peak then holds all.
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    ids = torch.randint(1000, 30000, (BATCH, LENGTH), device=device)
    labels = torch.randint(0, 2, (BATCH,), device=device)
    autocast = bf16 and method == "finetune"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak_mib(device: torch.device) -> float:
    """Most memory held so far: of the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_resident_gib() * 2**10


def in_own_process(part: str, name: str) -> dict:
    """What `--case` prints, in a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.masks", "--only", part, "--case", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_step(device: torch.device, repeats: int, only: list[str] | None) -> list[dict]:
    """Seconds of a training step."""
    names = [name for name in STEPS if only is None or name in only]
    times = timed({name: make_step(name, device) for name in names}, repeats, device)
    return [
        {
            "case": name,
            "seconds": statistics.median(found),
            "spread": (max(found) - min(found)) / statistics.median(found),
        }
        for name, found in times.items()
    ]


def measure_memory(only: list[str] | None) -> list[dict]:
    """Peak memory of a training step, each variant alone."""
    names = [name for name in STEPS if only is None or name in only]
    records = []
    for name in names:
        records.append({"case": name, **in_own_process("memory", name)})
        logger.info("%s: %.0f MiB", name, records[-1]["peak_mib"])
    return records


def memory_case(name: str, device: torch.device) -> dict:
    """One variant's peak over a step."""
    make_step(name, device)()
    return {"peak_mib": peak_mib(device)}


def measure_file(repeats: int) -> list[dict]:
    """Size against n H(p), and bytes of fp32 weights covered per second of decoding."""
    records = []
    with tempfile.TemporaryDirectory() as name:
        (path,) = write_masks(Path(name), 1)
        folder = MaskFolder.open(path)
        folder.convert(Path(name) / "bits", "bits")
        for case, opened in (("gaps", folder), ("bits", MaskFolder.open(Path(name) / "bits"))):
            coded = dict(opened.coded())
            count = sum(math.prod(opened.shape(layer)) for layer in coded)
            dropped = sum(opened.dropped(layer, data).size for layer, data in coded.items())
            size = sum(data.nbytes for data in coded.values())
            seconds = {"positions": [], "mask": []}  # type: dict[str, list[float]]
            for _ in range(max(3, repeats)):
                begin = time.perf_counter()
                for layer, data in coded.items():
                    opened.dropped(layer, data)
                seconds["positions"].append(time.perf_counter() - begin)
                begin = time.perf_counter()
                for _ in opened.masks():
                    pass
                seconds["mask"].append(time.perf_counter() - begin)
            records.append(
                {
                    "case": case,
                    "weights": count,
                    "zeros": dropped / count,
                    "bytes": size,
                    "file_bytes": (opened.path / TENSOR_FILE).stat().st_size,
                    "of_entropy": 8 * size / entropy_bits(count, dropped / count),
                    "positions_mb_per_s": 4e-6 * count / statistics.median(seconds["positions"]),
                    "mask_mb_per_s": 4e-6 * count / statistics.median(seconds["mask"]),
                }
            )
    return records


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), help="these of `step`, `memory`")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.case:
        print(json.dumps(memory_case(args.case, device)))
        return
    report = OUT / f"masks-{device.type}"
    path = report.with_suffix(".json")
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("machine") != describe(device):
        found = {"machine": describe(device)}
    for part in args.only:
        records = {
            "step": lambda: measure_step(device, args.repeats, args.steps),
            "memory": lambda: measure_memory(args.steps),
            "file": lambda: measure_file(args.repeats),
        }[part]()
        new = [record["case"] for record in records]
        kept = [r for r in found.get(part, []) if r["case"] not in new]
        order = list(STEPS) if part in ("step", "memory") else new
        found[part] = sorted(kept + records, key=lambda r: order.index(r["case"]))
        OUT.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        report.with_suffix(".md").write_text(table(found, f"{BATCH} × {LENGTH}"))
    print(table(found, f"{BATCH} × {LENGTH}"))


if __name__ == "__main__":
    main()
