"""All records as one page of markdown."""

from __future__ import annotations

from typing import Any

TITLE = "# Measured on one device"


def markdown(machine: str, parts: dict[str, dict[str, Any]]) -> str:
    """The page; a part that was not measured is missing."""
    lines = [TITLE, "", f"{machine}. Made by `python -m benchmarks.gpu`.", ""]
    if part := parts.get("correctness"):
        lines += _correctness(part)
    if part := parts.get("steps"):
        lines += _steps(part)
    if part := parts.get("curves"):
        lines += _curves(part)
    return "\n".join(lines).rstrip() + "\n"


def _origin(part: dict[str, Any]) -> str:
    commit = part["commit"] or "unknown"
    return f"{part['machine']}; commit {commit}, {part['time']}."


def _correctness(part: dict[str, Any]) -> list[str]:
    tests = part["tests"]
    counts = {
        kind: sum(test["outcome"] == kind for test in tests.values())
        for kind in ("passed", "failed", "skipped")
    }
    text = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    if not part["finished"]:
        text += "; broken off"
    lines = ["## Tests", "", f"{text}. {_origin(part)}", ""]
    lines += ["| test | outcome | seconds | |", "| --- | --- | ---: | --- |"]
    for name, test in tests.items():
        notes = [f"{key} {value}" for key, value in test.get("noted", {}).items()]
        if test.get("reason"):
            notes.insert(0, test["reason"].strip().splitlines()[-1][:120])
        name = name.removeprefix("tests/gpu/").replace("|", "\\|")
        note = "; ".join(notes).replace("|", "\\|")
        lines.append(f"| {name} | {test['outcome']} | {test['seconds']:.1f} | {note} |")
    return [*lines, ""]


def _steps(part: dict[str, Any]) -> list[str]:
    lines = [
        "## A training step: forward, backward, AdamW", "",
        "Medians of interleaved repeats; the spread is that between quartiles. Ratios are of",
        "tokens/s to the faster of Hugging Face's eager runs, RobertaForMaskedLM at 15 %. bf16",
        "weights have an fp32 copy for the update; MFU is executed FLOPs over the data sheet's",
        "dense bf16 peak.",
        _origin(part), "",
    ]  # fmt: skip
    for name, cell in part["cells"].items():
        lines += [f"### {name}", ""]
        if cell.get("error"):
            lines += [f"Not measured: {cell['error'].strip().splitlines()[-1]}", ""]
            continue
        lines += [f"{cell['micro_batch_size']} x {cell['seq_len']}, {cell['repeats']} repeats.", ""]
        lines += [
            "| variant | tokens/s | spread | x Hugging Face eager | TFLOP/s | MFU | peak GiB |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [_step_line(v, fastest_eager(cell["variants"])) for v in cell["variants"]]
        if cell["left_out"]:
            lines += ["", f"No time was left for: {', '.join(cell['left_out'])}."]
        lines.append("")
    return lines


def fastest_eager(variants: list[dict[str, Any]]) -> float | None:
    """Tokens/s of the faster of Hugging Face's eager runs."""
    speeds = [
        variant["tokens_per_second"]
        for variant in variants
        if variant["variant"].startswith("Hugging Face")
        and "compiled" not in variant["variant"]
        and "tokens_per_second" in variant
    ]
    return max(speeds, default=None)


def _step_line(variant: dict[str, Any], reference: float | None) -> str:
    name = variant["variant"]
    if "error" in variant:
        return f"| {name} | {variant['error']} | | | | | |"
    speed = variant["tokens_per_second"]
    cells = [
        f"{name} ({variant['precision']})",
        f"{speed:,.0f}",
        f"{variant['spread']:.0%}",
        f"{speed / reference:.2f}" if reference else "",
        f"{variant['tflops']:.3g}",
        "" if variant["mfu"] is None else f"{variant['mfu']:.1%}",
        "" if variant["peak_gib"] is None else f"{variant['peak_gib']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _curves(part: dict[str, Any]) -> list[str]:
    model, runs = part["model"], part["runs"]
    lines = [
        "## Late masking against vanilla 15 %", "",
        f"{model['num_hidden_layers']} layers x {model['hidden_size']}, {part['data']}, "
        f"{part['train_minutes']:g} minutes of training each, evaluation and",
        f"compilation counted; validation loss in nats at 15 %, all [MASK]. {_origin(part)}", "",
        "| | minutes | steps | tokens | validation loss | |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]  # fmt: skip
    for name, run in runs.items():
        if not run["points"]:
            lines.append(f"| {name} | {run['trained_seconds'] / 60:.2f} | | | | |")
            continue
        last = run["points"][-1]
        state = "finished" if run["finished"] else "to be continued"
        lines.append(
            f"| {name} | {60 * last['hours']:.2f} | {last['step']:,} | {last['tokens']:,} | "
            f"{last['valid_loss']:.4f} | {(run.get('error') and 'failed') or state} |"
        )
    if "late" in runs and "vanilla" in runs and (rows := _aligned(runs)):
        lines += ["", "| minutes | vanilla | late | late relative to vanilla |"]
        lines += ["| ---: | ---: | ---: | ---: |"]
        lines += [f"| {m:.2f} | {v:.4f} | {n:.4f} | {n - v:+.4f} |" for m, v, n in rows]
    return [*lines, ""]


def _aligned(runs: dict[str, Any], count: int = 8) -> list[tuple[float, float, float]]:
    """(minutes, vanilla, late): the last evaluation of each at `count` points in time."""
    curves = [
        [(60 * point["hours"], point["valid_loss"]) for point in runs[name]["points"]]
        for name in ("vanilla", "late")
    ]
    if not all(curves):
        return []
    first, last = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    rows = []
    for index in range(count):
        minutes = first + (last - first) * index / (count - 1)
        losses = [[loss for m, loss in curve if m <= minutes + 1e-9] for curve in curves]
        if all(losses):
            rows.append((minutes, losses[0][-1], losses[1][-1]))
    return rows
