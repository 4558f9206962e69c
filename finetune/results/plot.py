"""The table as a picture: every seed a point, every median a bar, one panel row for all tasks."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from finetune.files import write_figure
from finetune.results.cells import Cell


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Write a PNG of each task's first metric, in percent, by method."""
    metrics: dict[str, str] = {}
    for cell in cells:
        metrics.setdefault(cell.task, cell.metric)
    shown = [cell for cell in cells if cell.metric == metrics[cell.task]]
    methods = list(dict.fromkeys(cell.method for cell in shown))
    figure = Figure(figsize=(2 + 0.9 * len(metrics), 3.6), layout="constrained")
    axes = figure.subplots()
    for cell in shown:
        column = methods.index(cell.method)
        place = list(metrics).index(cell.task) + 0.8 * ((column + 0.5) / len(methods) - 0.5)
        width, color = 0.6 / len(methods), f"C{column}"
        points = [100 * value for value in cell.values]
        axes.plot([place] * len(points), points, "o", color=color, markersize=4, alpha=0.6)
        axes.hlines(100 * cell.median, place - width / 2, place + width / 2, color=color, lw=2.5)
    for column, method in enumerate(methods):
        axes.plot([], [], "o", color=f"C{column}", label=method)
    names = [f"{task}\n{metric.replace('_', ' ')}" for task, metric in metrics.items()]
    axes.set_xticks(range(len(metrics)), names, fontsize=7, rotation=30, ha="right")
    axes.set_ylabel("percent")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
    write_figure(path, figure)
