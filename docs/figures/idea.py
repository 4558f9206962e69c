"""Draws idea.svg, the picture at the top of the README.

python docs/figures/idea.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

WORDS = ["the", "short", "half", "of", "the", "text", "pays", "for", "the", "early", "layers"]
MASKED = {1, 3, 5, 7, 8}
SEEN, HIDDEN, MASK, DARK = "#4c72b0", "#e3e3e8", "#dd8452", "#33333a"
WIDTH = len(WORDS)
CELL, GAP = 0.9, 0.1
HIGH, LAYER = 0.62, 0.72
EARLY, LATE = 4, 2  # layers drawn


def box(
    ax: Axes,
    x: float,
    y: float,
    width: float,
    text: str = "",
    color: str = "white",
    text_color: str = "white",
    edge_color: str | None = None,
    alpha: float = 1,
) -> None:
    """A rounded box with a word in it."""
    ax.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            HIGH,
            boxstyle="round,pad=0,rounding_size=0.12",
            linewidth=1.2 if edge_color else 0,
            facecolor=color,
            edgecolor=edge_color,
            alpha=alpha,
        )
    )
    middle = (x + width / 2, y + HIGH / 2 - 0.02)
    ax.text(*middle, text, ha="center", va="center", color=text_color, fontsize=7.6)


def title(ax: Axes, text: str) -> None:
    """What a half of the picture shows."""
    ax.set_title(text, loc="left", fontsize=12, color=DARK, weight="bold")


def sequence(ax: Axes, y: float, shown: list[int]) -> None:
    """Boxes for the positions `shown`, in the middle; masked ones say so."""
    left = (WIDTH - len(shown)) / 2
    for place, position in enumerate(shown):
        masked = position in MASKED
        text = "[MASK]" if masked else WORDS[position]
        box(ax, left + place, y, CELL, text, color=MASK if masked else SEEN)


def layers(ax: Axes, y: float, count: int, positions: int, color: str) -> float:
    """`count` layers that compute so many positions; returns where they end."""
    left = (WIDTH - positions) / 2
    for number in range(count):
        box(ax, left, y + number * LAYER, positions - GAP, color=color, alpha=0.28)
    return y + count * LAYER


def late_masking(ax: Axes) -> None:
    """Tokens at the bottom, the prediction at the top."""

    def note(y: float, text: str) -> None:
        ax.text(WIDTH + 0.15, y, text, va="center", color=DARK, fontsize=9)

    middle = HIGH / 2
    for position, word in enumerate(WORDS):
        if position in MASKED:
            box(ax, position, 0, CELL, word, color=HIDDEN, text_color="#9a9aa2")
        else:
            box(ax, position, 0, CELL, word, color=SEEN)
    note(middle, "half of the tokens are masked")
    seen = [position for position in range(WIDTH) if position not in MASKED]
    sequence(ax, 1.0, seen)
    note(1.0 + middle, "only the others enter")
    early = 1.95
    insertion = layers(ax, early, EARLY, len(seen), SEEN) + 0.2
    note(
        (early + insertion - 0.2) / 2, "early layers: half the length,\nless than half the compute"
    )
    sequence(ax, insertion, list(range(WIDTH)))
    note(insertion + middle, "[MASK]s enter late")
    late = insertion + 0.95
    top = layers(ax, late, LATE, WIDTH, MASK) + 0.2
    note((late + top - 0.2) / 2, "last layers: the whole sequence")
    for position in sorted(MASKED):
        box(ax, position, top, CELL, WORDS[position], text_color=DARK, edge_color=MASK)
    note(top + middle, "the masked words are predicted")
    ax.set_xlim(-0.1, WIDTH + 4.1)
    ax.set_ylim(-0.2, top + 1)
    title(ax, "Pretraining: the early layers never see a [MASK]")


def weight_masks(ax: Axes) -> None:
    """One matrix of weights, and what each of three tasks leaves of it."""
    draw = np.random.default_rng(3)
    size = 12
    weights = 0.25 + 0.6 * draw.random((size, size))
    cmap = mpl.colormaps["Blues"]

    def grid(x: float, y: float, scale: float, dropped: np.ndarray) -> None:
        colors = cmap(weights)
        colors[dropped] = (1, 1, 1, 1)
        ax.imshow(colors, extent=(x, x + scale, y, y + scale), interpolation="nearest")
        ax.add_patch(
            plt.Rectangle((x, y), scale, scale, fill=False, color="#b8b8c0", linewidth=0.8)
        )

    grid(0, 1.9, 3.4, np.zeros((size, size), bool))
    ax.text(
        1.7,
        1.65,
        "pretrained weights,\nheld once for all tasks",
        ha="center",
        va="top",
        fontsize=9,
        color=DARK,
    )
    for number, name in enumerate(("sentiment", "topics", "entities")):
        y = 5.0 - number * 2.3
        grid(5.4, y, 1.9, draw.random((size, size)) < 0.09)
        ax.annotate(
            "", (5.25, y + 0.95), (3.55, 3.6), arrowprops={"arrowstyle": "-", "color": "#b8b8c0"}
        )
        ax.text(
            7.5,
            y + 0.95,
            name,
            va="center",
            fontsize=9,
            color=DARK,
        )
    ax.text(6.35, 0.1, "⅓ bit per weight and task", ha="center", va="top", fontsize=9, color=DARK)
    ax.set_xlim(-0.2, 9.4)
    ax.set_ylim(-0.7, 7.3)
    title(ax, "Tasks: a bit mask each, not a copy")


def main() -> None:
    """Write idea.svg beside this file."""
    mpl.rcParams.update(
        {"svg.hashsalt": "latemask", "font.family": "DejaVu Sans", "svg.fonttype": "path"}
    )
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.8), width_ratios=(1.75, 1), layout="constrained"
    )
    late_masking(left)
    weight_masks(right)
    for ax in (left, right):
        ax.set_aspect("equal")
        ax.axis("off")
    path = Path(__file__).with_suffix(".svg")
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main()
