"""`runs/demo/report.html` from the files that the stages left: one page, nothing fetched.

python -m demo.report runs/demo
"""

from __future__ import annotations

import base64
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from demo.figures import Curve, loss_figure, sources_figure

RUNS = {"late": "late masking", "vanilla": "vanilla"}


def read_run(folder: Path, name: str) -> dict[str, Any]:
    """What the report says of one pretraining run."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    valid = [record for record in records if "valid/loss" in record]
    speeds = [r["speed/tokens_per_second"] for r in records if "speed/tokens_per_second" in r]
    last = valid[-1]
    return {
        "label": f"{RUNS[name]} {100 * config['masking']['rate']:g} %",
        "config": config,
        "curve": Curve(
            seconds=[3600 * r["hours"] for r in valid],
            tokens=[r["tokens"] for r in valid],
            flops=[r["flops"] for r in valid],
            loss=[r["valid/loss"] for r in valid],
        ),
        "unigram": next(r["valid/unigram_loss"] for r in records if "valid/unigram_loss" in r),
        "loss": last["valid/loss"],
        "tokens": last["tokens"],
        "flops": last["flops"],
        "steps": last["step"],
        "seconds": 3600 * last["hours"],
        "tokens_per_second": statistics.median(speeds),
        "flops_per_token": last["flops"] / last["tokens"],
    }


def read_tasks(folder: Path) -> list[dict[str, Any]]:
    """One row a task: its majority share, and each method's cell of `table.json`."""
    cells = json.loads((folder / "table.json").read_text())
    rows = []
    for task in dict.fromkeys(cell["task"] for cell in cells):
        methods = {c["method"]: c for c in cells if (c["task"], c["metric"]) == (task, "accuracy")}
        majority = methods["mask"]["constant"]
        rows.append({"task": task, "majority": majority, "methods": methods})
    return rows


def read_sizes(out: Path) -> dict[str, float]:
    """Bytes of the pretrained model, of a finetuned copy and of a mask (medians)."""

    def median(pattern: str) -> float:
        return statistics.median(file.stat().st_size for file in out.glob(pattern))

    return {
        "model": (out / "late/hf/model.safetensors").stat().st_size,
        "finetuned": median("glue/*/finetune/*/model.safetensors"),
        "mask": median("glue/*/mask/*/adapter_model.safetensors"),
    }


def build(out: Path) -> str:
    """The page's HTML."""
    manifest = json.loads((out / "data/manifest.json").read_text())
    runs = {name: read_run(out / name, name) for name in RUNS}
    curves = {run["label"]: run["curve"] for run in runs.values()}
    unigram = runs["late"]["unigram"]
    sooner = runs["late"]["curve"].seconds_to(runs["vanilla"]["loss"])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    picture = base64.b64encode((out / "tsne.png").read_bytes()).decode()
    return environment.get_template("report.html.jinja").render(
        manifest=manifest,
        totals=manifest["counts"]["total"],
        runs=runs,
        unigram=unigram,
        sooner=None if sooner is None else sooner / runs["vanilla"]["seconds"],
        loss_by_time=Markup(loss_figure(curves, "seconds", unigram, size=(9.4, 3.4))),
        loss_by_tokens=Markup(loss_figure(curves, "tokens", unigram)),
        loss_by_flops=Markup(loss_figure(curves, "flops", unigram)),
        sources=Markup(sources_figure(manifest["counts"]["sources"])),
        tasks=read_tasks(out / "glue"),
        sizes=read_sizes(out),
        tsne=f"data:image/png;base64,{picture}",
        filled=[json.loads(line) for line in (out / "filled.jsonl").read_text().splitlines()],
    )


def main(argv: Sequence[str]) -> None:
    """Write OUT/report.html; a missing file ends with the command that makes it."""
    if len(argv) != 1:
        sys.exit("usage: python -m demo.report runs/demo")
    out = Path(argv[0])
    try:
        page = build(out)
    except (FileNotFoundError, statistics.StatisticsError) as error:
        sys.exit(f"error: {error}; `make demo` makes what is missing")
    partial = out / "report.html.partial"
    partial.write_text(page)
    partial.replace(out / "report.html")
    print(f"wrote {out / 'report.html'}: open it in a browser")


if __name__ == "__main__":
    main(sys.argv[1:])
