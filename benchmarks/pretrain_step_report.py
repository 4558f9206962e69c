"""The table and the plot of `pretrain_step.py`'s records."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.figure import Figure

REFERENCE = "vanilla, 15 %"


def group_of(record: dict) -> tuple[str, str, int, int, str]:
    """What is compared with each other: one machine, size, length, batch and precision."""
    return record["machine"], record["size"], record["seq_len"], record["batch"], record["best"]


def _title(record: dict) -> str:
    return f"{record['size']}, {record['batch']} x {record['seq_len']}, {record['best']}"


def _ratio(speed: float, peer: float | None) -> str:
    return f"{speed / peer:.2f}" if peer else ""


def table(records: list[dict]) -> str:
    """Markdown, a section for each machine; ratios are of tokens per second within one table."""
    lines = [
        "# A pretraining step, forward and backward", "",
        "Median of interleaved repeats; the spread is that between quartiles. Made by",
        "`python -m benchmarks.pretrain_step`. FLOPs are the executed ones. Of Hugging Face's",
        "eager runs the ratios take the faster; its bf16 is autocast, ours has bf16 weights.", "",
    ]  # fmt: skip
    machine = None
    for key in dict.fromkeys(group_of(r) for r in records):
        group = [r for r in records if group_of(r) == key]
        if group[0]["machine"] != machine:
            machine = group[0]["machine"]
            lines += [f"## {machine}", ""]
        speeds = {r["variant"]: r["tokens_per_second"] for r in group}
        compiled = speeds.get("Hugging Face, 15 %, compiled")
        eager = max(
            (v for k, v in speeds.items() if k.endswith(", eager") and "Hug" in k), default=None
        )
        vanilla = next(r for r in group if r["variant"] == REFERENCE)
        lines += [
            f"### {_title(group[0])}", "",
            "| variant | tokens/s | spread | x HF eager | x HF compiled | step time / vanilla | "
            "FLOPs / vanilla | TFLOP/s | of peak | peak GiB |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]  # fmt: skip
        for r in group:
            speed = r["tokens_per_second"]
            memory = "" if r["peak_gib"] is None else f"{r['peak_gib']:.2f}"
            lines.append(
                f"| {r['variant']} ({r['precision']}) | {speed:,.0f} | {r['spread']:.0%} | "
                f"{_ratio(speed, eager)} | {_ratio(speed, compiled)} | "
                f"{r['seconds'] / vanilla['seconds']:.3f} | "
                f"{r['flops'] / vanilla['flops']:.3f} | {r['tflops']:.2f} | "
                f"{r['share_of_peak']:.0%} | {memory} |"
            )
        lines.append("")
    return "\n".join(lines)


def plot(records: list[dict], path: Path) -> None:
    """Tokens per second of every variant, a panel for each size and length."""
    groups = list(dict.fromkeys(group_of(r) for r in records))
    figure = Figure(figsize=(9, 3.2 * len(groups)), layout="constrained")
    for axes, key in zip(figure.subplots(len(groups), squeeze=False)[:, 0], groups, strict=True):
        group = [r for r in records if group_of(r) == key]
        colours = ["#999" if "Hugging" in r["variant"] else "#0f766e" for r in group]
        names = [f"{r['variant']} ({r['precision']})" for r in group]
        bars = axes.barh(names, [r["tokens_per_second"] for r in group], color=colours)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.invert_yaxis()
        machine = textwrap.fill(group[0]["machine"], 60)
        axes.set_title(f"{_title(group[0])}\n{machine}", fontsize=9)
        axes.set_xlabel("tokens per second")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
