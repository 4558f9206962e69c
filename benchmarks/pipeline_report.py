"""The page of `benchmarks.pipeline`: every ratio, its spread, and the least that it should be."""

from __future__ import annotations

import statistics
from typing import Any

# part, what is measured, against what, least ratio of their seconds
TARGETS = [
    ("encode", "pipeline", "encode_batch", 0.6),
    ("encode", "tokenize, pack, shard", "encode_batch", 0.9),
    ("libraries", "pipeline", "datasets.map.map", 1.5),
    ("libraries", "pipeline", "datatrove", 1.2),
    ("workers", "pipeline", "pipeline, 1 worker", 1.7),
    ("store", "pipeline into a store", "pipeline", 0.77),
    ("mediawiki", "dump to articles", "mwparserfromhell.parse", 0.7),
]


def table(found: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [
        "# The data pipeline",
        "",
        "Medians of interleaved repeats, each in its own processes; the spread is from least to "
        "most. A ratio is the other's seconds by ours: over 1 we are faster. Made by "
        "`python -m benchmarks.pipeline`.",
        "",
        "| ours | seconds | spread | against | seconds | spread | ratio | at least |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for part, ours, other, least in TARGETS:
        seconds = found.get(part, {}).get("seconds", {})
        if other in seconds:
            wall = [statistics.median(seconds[name]["wall"]) for name in (ours, other)]
            spread = [
                (max(seconds[name]["wall"]) - min(seconds[name]["wall"])) / middle
                for name, middle in zip((ours, other), wall, strict=True)
            ]
            lines.append(
                f"| {ours} | {wall[0]:.1f} | {spread[0]:.0%} | {other} | {wall[1]:.1f} | "
                f"{spread[1]:.0%} | **{wall[1] / wall[0]:.2f}** | {least} |"
            )
    lines.append("")
    for part, result in found.items():
        if part == "memory":
            lines.append("| text | largest worker, GiB | driver, GiB |")
            lines.append("| ---: | ---: | ---: |")
            for size, peak in result["peaks"].items():
                lines.append(f"| {size} MB | {peak['worker']:.2f} | {peak['driver']:.2f} |")
            lines.append("")
    for part, result in found.items():
        tokens = f", {result['tokens']:,} tokens" if "tokens" in result else ""
        lines.append(
            f"- {part}: {result['megabytes']} MB{tokens}, {result['repeats']} repeats; "
            f"{result['machine']}"
        )
    return "\n".join(lines) + "\n"
