"""The report of `benchmarks.masks` in Markdown."""

from __future__ import annotations

from collections.abc import Callable


def _rows(records: list[dict], columns: dict[str, Callable[[dict], str]]) -> list[str]:
    lines = [f"| case | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for record in records:
        cells = " | ".join(cell(record) for cell in columns.values())
        lines.append(f"| {record['case']} | {cells} |")
    return [*lines, ""]


def table(found: dict, rows: str) -> str:
    """Markdown; ratios are to the first case, or to finetuning in the same precision.

    `rows` is the size of a training batch.
    """
    lines = [
        "# Masks: training step, memory, file", "",
        f"{found['machine']}. BERT-base, random weights; made by `python -m benchmarks.masks`.", "",
    ]  # fmt: skip

    def to_finetuning(key: str, records: list[dict]) -> Callable[[dict], str]:
        by = {r["case"]: r[key] for r in records}

        def ratio(r: dict) -> str:
            base = "finetuning, bf16 autocast" if "bf16" in r["case"] else "finetuning"
            return f"{r[key] / by[base]:.2f}" if base in by else "–"

        return ratio

    if step := found.get("step"):
        lines += [f"## A training step, {rows}", ""]
        lines += _rows(step, {
            "seconds": lambda r: f"{r['seconds']:.2f}", "spread": lambda r: f"{r['spread']:.0%}",
            "of finetuning": to_finetuning("seconds", step),
        })  # fmt: skip
    if memory := found.get("memory"):
        lines += [f"## Peak memory of training, {rows}, whole process", ""]
        lines += _rows(memory, {
            "MiB": lambda r: f"{r['peak_mib']:,.0f}",
            "of finetuning": to_finetuning("peak_mib", memory),
        })  # fmt: skip
    if file := found.get("file"):
        lines += [
            "## Mask file", "",
            "Decoding speed is bytes of the fp32 weights that the mask covers, per second, on one "
            "core.", "",
        ]  # fmt: skip
        lines += _rows(file, {
            "zeros": lambda r: f"{r['zeros']:.2%}", "bytes": lambda r: f"{r['bytes']:,}",
            "of n H(p)": lambda r: f"{r['of_entropy']:.3f}",
            "to positions, MB/s": lambda r: f"{r['positions_mb_per_s']:,.0f}",
            "file to mask, MB/s": lambda r: f"{r['mask_mb_per_s']:,.0f}",
        })  # fmt: skip
    return "\n".join(lines)
