"""How the figures look: axes with a light grid, and curves with every seed's point."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def panels(columns: Sequence[str], rows: int = 1, width: float = 4.2) -> tuple[Figure, np.ndarray]:
    """Figure, and axes [rows, columns] with `columns` as titles."""
    size = (max(width * len(columns), 5.0), 0.4 + 3.2 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=11)
    return figure, axes


def wrapped_panels(titles: Sequence[str], across: int = 5) -> tuple[Figure, list[Axes]]:
    """Figure, and an axis per title, at most `across` of them side by side."""
    columns = min(len(titles), across)
    figure, grid = panels(titles[:columns], rows=-(-len(titles) // columns))
    axes = list(grid.flat)
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, fontsize=11)
    for axis in axes[len(titles) :]:
        axis.remove()
    return figure, axes[: len(titles)]


def curve(axes: Axes, points: Mapping[float, Sequence[float]], label: str, colour: str) -> None:
    """Values by x: a line through the medians, every single value as a dot."""
    places = sorted(points)
    medians = [float(np.median(points[x])) for x in places]
    axes.plot(places, medians, color=colour, lw=1.8, label=label)
    for x in places:
        axes.plot([x] * len(points[x]), points[x], ".", color=colour, alpha=0.45, markersize=5)


def metric_of(rows: Sequence[Mapping[str, Any]], task: str) -> str:
    """The metric that `rows` have for `task`, in words."""
    return next(row["metric"] for row in rows if row["task"] == task).replace("_", " ")


def legend_below(figure: Figure, axes: Axes) -> None:
    """The labels of `axes`, below everything: inside they may cover a curve."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(len(names), 6), frameon=False
    )


def heat(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    written: np.ndarray,
) -> None:
    """A cell per value [R, C] with `written` in it, two decimals; NaN stays empty."""
    axes.imshow(values, cmap="viridis", vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    middle = sum(limits) / 2
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            text = f"{written[row, column]:.2f}"
            colour = "white" if value < middle else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
