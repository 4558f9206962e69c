"""The report of `reproduce adapters` in Markdown."""

from __future__ import annotations

import statistics
from collections import defaultdict

ORDER = ("finetune", "mask", "mask, second stage", "lora", "shira", "bitfit", "ia3", "linear")
MASKS = ("mask", "mask, second stage")
Scores = dict[tuple[str, str], list[float]]


def report(found: dict) -> str:
    """Scores and bytes, the grid's choice, the cost of training, and where masks lose.

    `found` has `machine`, `grid_seed`, `runs` (a record per task, method and seed) and `cost`.
    """
    runs = found["runs"]
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    methods = [name for name in ORDER if any(run["method"] == name for run in runs)]
    seeds = sorted({run["seed"] for run in runs})
    scores: Scores = defaultdict(list)
    for run in runs:
        scores[run["task"], run["method"]].append(100 * run["score"])
    metric = {run["task"]: run["metric"] for run in runs}
    grids = {(run["task"], run["method"]): _grid(run) for run in runs}
    sizes = {
        name: statistics.median(run["bytes"] for run in runs if run["method"] == name)
        for name in methods
    }
    cost = {record["method"]: record for record in found["cost"]}
    lines = [
        "# Masks beside other adapters", "",
        f"{found['machine']}; made by `python -m reproduce adapters` from "
        "`configs/reproduce/minilm_adapters.yaml` and `minilm_second_stage.yaml`.", "",
        "Development sets, median ± standard deviation of seeds "
        f"{', '.join(map(str, seeds))}, in percent. Each method's learning rate is the best of a "
        f"grid on seed {found['grid_seed']}. Rows, epochs, batches and schedule are equal. Bytes "
        "are those of the file with what was learned, the head included.",
        "",
    ]  # fmt: skip
    heads = [f"{task}, {metric[task]}" for task in tasks]
    lines += [
        f"| | {' | '.join(heads)} | bytes per task | step time | peak memory |",
        "| --- |" + " ---: |" * (len(heads) + 3),
    ]
    for name in methods:
        cells = [_score(scores[task, name]) for task in tasks]
        size = f"{sizes[name]:,.0f}"
        if name == "mask, second stage":
            size += " and the finetuned model"
        cells += [size, _ratio(cost, name, "seconds"), _ratio(cost, name, "peak_mib")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *_cost_note(cost), "The grids of learning rates, and what they chose:", ""]
    lines += [f"| | {' | '.join(tasks)} |", "| --- |" + " ---: |" * len(tasks)]
    for name in methods:
        lines.append(f"| {name} | {' | '.join(grids.get((t, name), '–') for t in tasks)} |")
    lines += ["", "## Where masks lose", "", *_losses(tasks, methods, scores, sizes)]
    lines += [
        "", "Differences of medians; where the standard deviations are as large, three seeds show "
        "none to be more than chance. The second stage needs the finetuned model beside it, unless "
        "several tasks share that. At inference LoRA, SHiRA and IA3 merge into the weights, as "
        "masks do; many tasks on one backbone: "
        "[masks.md](../masks.md#many-tasks-on-one-backbone).",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _score(values: list[float]) -> str:
    if not values:
        return "–"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.median(values):.1f} ± {spread:.1f} (n={len(values)})"


def _grid(run: dict) -> str:
    """The rates that were tried, the best one in bold."""
    best = run["learning_rate"]
    return ", ".join(f"**{rate:g}**" if rate == best else f"{rate:g}" for rate in run["grid"])


def _ratio(cost: dict[str, dict], name: str, key: str) -> str:
    if name not in cost or "finetune" not in cost:
        return "–"
    return f"{cost[name][key] / cost['finetune'][key]:.2f}"


def _cost_note(cost: dict[str, dict]) -> list[str]:
    if "finetune" not in cost:
        return []
    base = cost["finetune"]
    return [
        "Step time and memory are relative to finetuning, in one precision for all "
        f"({base['seconds']:.2f} s of processor time a step, medians of batches taken in turn; "
        f"{base['peak_mib']:,.0f} MiB of the whole process, Python and its libraries included). "
        "All take equally many steps; the second stage's come after finetuning's.",
        "",
    ]


def _losses(
    tasks: list[str], methods: list[str], scores: Scores, sizes: dict[str, float]
) -> list[str]:
    """A line per kind of mask and task: what scores above it, and with how many bytes."""
    lines = []
    for mask in MASKS:
        for task in tasks:
            if not scores[task, mask]:
                continue
            own = statistics.median(scores[task, mask])
            above = {
                name: statistics.median(scores[task, name]) - own
                for name in methods
                if name not in MASKS and scores[task, name]
            }
            better = [
                f"{name} by {by:.1f} ({_times(sizes[name] / sizes[mask])} the bytes)"
                for name, by in sorted(above.items(), key=lambda pair: -pair[1])
                if by >= 0.05
            ]
            lines.append(f"- {mask}, {task}: below {', '.join(better) or 'none'}.")
    return lines


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"
