"""The record's pictures, from its CSV files' rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY = "#6b7280"
AXES = {
    "tokens": (1e6, "million tokens"),
    "flops": (1e12, "TFLOP executed"),
    "hours": (1 / 60, "minutes"),
}
MARKERS = "os^D"
Points = Sequence[Mapping[str, Any]]


def loss_curves(
    curves: Mapping[str, Mapping[int, Points]],
    axes: Sequence[str],
    titles: Mapping[str, str],
    lines: Mapping[str, float],
) -> Figure:
    """Validation loss of each variant (its seeds in one colour) against tokens, FLOPs, minutes.

    Args:
        curves: variant -> seed -> evaluations.
        axes: keys of the evaluations to put on an x axis, a panel each.
        titles: of the variants.
        lines: name -> loss of a horizontal line, where it lies within the picture.
    """
    figure = Figure(figsize=(4.2 * len(axes), 4.2), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, key in zip(panels, axes, strict=True):
        unit, label = AXES[key]
        for number, (variant, seeds) in enumerate(curves.items()):
            for index, points in enumerate(seeds.values()):
                x, y = ([float(p[k]) / u for p in points] for k, u in ((key, unit), ("loss", 1)))
                name = titles[variant] if panel is panels[0] and index == 0 else None
                panel.plot(x, y, color=f"C{number}", lw=1, alpha=0.8, label=name)
        for name, loss in lines.items():
            panel.axhline(loss, color=GREY, ls="--", lw=0.8)
            panel.annotate(name, (0.99, loss), xycoords=("axes fraction", "data"), fontsize=7,
                           color=GREY, ha="right", va="bottom")  # fmt: skip
        panel.set(xlabel=label)
        _clean(panel)
    panels[0].set(ylabel="validation loss at 15 %, nats")
    columns = 2 if len(axes) > 1 else 1  # as many as the width holds
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return figure


def final_losses(
    finals: Mapping[str, Mapping[int, float]], titles: Mapping[str, str], reference: str
) -> Figure:
    """Each variant's final losses, a dot a seed, a bar at the mean; a line at the reference's."""
    figure = Figure(figsize=(8, 0.8 + 0.27 * len(finals)), layout="constrained")
    axis = figure.subplots()
    for row, losses in enumerate(finals.values()):
        values = list(losses.values())
        axis.plot(values, [row] * len(values), "o", ms=3.5, color="C0", alpha=0.7)
        axis.plot(np.mean(values), row, "|", ms=11, color="C3")
    if reference in finals:
        axis.axvline(float(np.mean(list(finals[reference].values()))), color=GREY, ls="--", lw=0.8)
    axis.set_yticks(range(len(finals)), [titles[variant] for variant in finals], fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="final validation loss, nats")
    _clean(axis)
    return figure


def score_by_loss(points: Points, titles: Mapping[str, str]) -> Figure:
    """Mean score of each finetuned run over its final loss; a colour and shape a variant."""
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for number, variant in enumerate(dict.fromkeys(point["variant"] for point in points)):
        mine = [point for point in points if point["variant"] == variant]
        axis.plot([p["loss"] for p in mine], [p["score"] for p in mine], MARKERS[number // 10],
                  ms=5, color=f"C{number % 10}", label=titles[variant])  # fmt: skip
    axis.set(xlabel="final validation loss, nats", ylabel="mean score after finetuning")
    _clean(axis)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def by_layer(records: Points, titles: Mapping[str, str]) -> Figure:
    """Rank of states with and without [MASK]s, attention to them, gradients; a line a variant."""
    panels = {
        "rank": "effective rank of visible tokens' states\n(dashed: no [MASK] in the sequence)",
        "attention": "attention of visible tokens to [MASK]s\n(1: as much as to any token)",
        "gradient": "norm of the gradient",
    }
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    variants = list(dict.fromkeys(record["variant"] for record in records))
    for axis, (measure, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for number, variant in enumerate(variants):
            mine = [r for r in records if (r["variant"], r["measure"]) == (variant, measure)]
            for kind in dict.fromkeys(r["input"] for r in mine):
                points = [(r["layer"], r["value"]) for r in mine if r["input"] == kind]
                style = "--" if kind == "without" else "-"
                label = titles[variant] if measure == "rank" and style == "-" else None
                axis.plot(*zip(*points, strict=True), style, color=f"C{number}", label=label,
                          marker=".", lw=1.2)  # fmt: skip
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="layer")
        if measure == "gradient":
            axis.set_yscale("log")
        _clean(axis)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _clean(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#e5e7eb", lw=0.6)
    axis.tick_params(labelsize=8)
