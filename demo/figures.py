"""The report's figures as inline SVG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

COLOURS = ("#0f766e", "#c2410c")  # late masking, vanilla
GREY = "#6b7280"
_STYLE: Any = {
    "font.size": 9,
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
}


@dataclass(frozen=True)
class Curve:
    """Validation loss (nats) after so much of everything."""

    seconds: list[float]
    tokens: list[float]
    flops: list[float]
    loss: list[float]

    def seconds_to(self, loss: float) -> float | None:
        """When the loss first is that low, between two evaluations linearly; None: never."""
        points = list(zip(self.seconds, self.loss, strict=True))
        for (begin, above), (end, below) in pairwise(points):
            if below <= loss < above:
                return begin + (end - begin) * (above - loss) / (above - below)
        return None


_UNITS = {
    "seconds": (1.0, "seconds of training"),
    "tokens": (1e6, "million tokens"),
    "flops": (1e12, "TFLOP executed"),
}


def loss_figure(
    curves: dict[str, Curve],
    axis: Literal["seconds", "tokens", "flops"],
    unigram: float,
    size: tuple[float, float] = (4.6, 3.1),
) -> str:
    """Validation loss of each run against time, tokens or FLOPs, and the unigram line.

    Args:
        curves: by label.
        axis: what the loss is plotted against.
        unigram: loss of the token frequencies, nats.
        size: inches.
    """
    unit, name = _UNITS[axis]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        for (label, curve), colour in zip(curves.items(), COLOURS, strict=True):
            x = [value / unit for value in getattr(curve, axis)]
            axes.plot(x, curve.loss, color=colour, label=label, marker=".", lw=1.6)
        axes.axhline(unigram, color=GREY, ls="--", lw=1, label="token frequencies only")
        axes.set(xlabel=name, ylabel="validation loss, nats")
        # Below the axes: anywhere inside it may cover a curve.
        figure.legend(
            loc="outside lower center", ncols=3, frameon=False, fontsize=8, columnspacing=1
        )
        return _svg(figure)


def sources_figure(sources: dict[str, dict[str, Any]], shown: int = 12) -> str:
    """Characters kept, by library."""
    sizes = {name: counts["characters"] / 1e6 for name, counts in sources.items()}
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:shown]
    rest = sum(sizes.values()) - sum(sizes[name] for name in largest)
    names = [*largest, f"{len(sizes) - len(largest)} others"]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 3.1), layout="constrained")
        axes.barh(names, [*(sizes[name] for name in largest), rest], color=COLOURS[0])
        axes.invert_yaxis()
        axes.set(xlabel="million characters")
        axes.grid(axis="y", visible=False)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
