"""Draws result.svg from the records: validation loss by compute, and the memory of eleven tasks.

python docs/figures/result.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

DOCS = Path(__file__).parents[1]
CURVES = DOCS / "recipe/curves.csv"
SCORES = DOCS / "recipe/downstream.csv"
SERVING = DOCS / "benchmarks/mask_serving-cpu.json"
# Label, colour, and how far above its line's end the label stands.
RUNS = {
    "vanilla_15": ("vanilla, 15 %", "#8a8a94", 0.0),
    "vanilla_50": ("vanilla, 50 %", "#55a868", -0.1),
    "late": ("late [MASK]s, 50 %", "#dd8452", 0.1),
}
HELD = {"one model": "one model", "masks": "11 masks", "copies": "11 finetuned copies"}


def losses(ax: Axes) -> None:
    """Each run's mean over seeds, and their range, by the share of the budget of FLOPs."""
    curves = pd.read_csv(CURVES)
    for name, (label, color, above) in RUNS.items():
        of_run = curves[curves.variant == name]
        budget = of_run.groupby("seed").flops.transform("max")
        of_run = of_run.assign(share=(of_run.flops / budget).round(3))
        by_share = of_run.groupby("share").loss
        complete = by_share.count() == of_run.seed.nunique()
        mean, low, high = (by_share.agg(how)[complete] for how in ("mean", "min", "max"))
        ax.fill_between(100 * mean.index, low, high, color=color, alpha=0.25, lw=0)
        ax.plot(100 * mean.index, mean, color=color, lw=2)
        ax.annotate(
            f"{label}: {mean.iloc[-1]:.2f}", (100, mean.iloc[-1]), (102, mean.iloc[-1] + above),
            color=color, va="center", annotation_clip=False,
        )  # fmt: skip
    ax.set(xlim=(0, 100), ylim=(3.2, 6.0), xlabel="FLOPs spent, %", ylabel="validation loss, nats")
    ax.set_title("The same FLOPs, a lower loss", loc="left", fontweight="bold")
    scores = pd.read_csv(SCORES).groupby("variant").value.mean()
    vanilla, more, late = (f"{100 * scores[name]:.1f}" for name in RUNS)
    ax.text(
        38, 5.1, "ModernBERT's body, 8 layers × 128, three seeds and\n"
        "their range; finetuned, the mean of four tasks is\n"
        f"{vanilla} (vanilla, 15 %), {more} (50 %) and {late} (late)", fontsize=7,
        color="#555560",
    )  # fmt: skip


def memory(ax: Axes) -> None:
    """What eleven tasks on BERT-base hold."""
    found = json.loads(SERVING.read_text())["encoders"]["BERT-base"]["memory"]
    held = {row["case"]: row["held_mib"] for row in found}
    sizes = [held[case] / held["one model"] for case in HELD]
    bars = ax.barh(list(HELD.values()), sizes, color=["#c9c9d2", "#4c72b0", "#8a8a94"], height=0.6)
    ax.bar_label(bars, [f"{size:.2f}" for size in sizes], padding=4)
    ax.invert_yaxis()
    ax.set(xlim=(0, 12.5), xlabel="memory, in BERT-base models")
    ax.set_title("Eleven tasks, one model's memory", loc="left", fontweight="bold")


def main() -> None:
    """Draw and save."""
    mpl.rcParams |= {"svg.hashsalt": "latemask", "svg.fonttype": "path", "font.size": 9}
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), width_ratios=[1.1, 1])
    losses(left)
    memory(right)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.tight_layout(w_pad=9)
    figure.savefig(
        Path(__file__).with_name("result.svg"), metadata={"Date": None}, facecolor="white"
    )


if __name__ == "__main__":
    main()
