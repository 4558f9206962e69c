"""t-SNE of the first token's last-layer states: pretrained, finetuned, masked (paper, figure 4).

scikit-learn's defaults but for the seed, of the same dev sentences; of several seeds, the runs of
the first. How well a map separates the classes is the share of a point's ten nearest that are of
its class, averaged; the claim holds for a task if this is higher by 5 points or more than for the
pretrained encoder, both finetuned and masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from transformers import AutoModel

from finetune.errors import FinetuneError
from finetune.jobs.plan import model_identity
from finetune.masks.apply import from_checkpoint
from finetune.tasks.encode import Rows
from reproduce.weight_masks.finding import Finding, publish, verdict
from reproduce.weight_masks.flags import RunFlags, read_command
from reproduce.weight_masks.forward import first_token_states, targets
from reproduce.weight_masks.parts import once
from reproduce.weight_masks.runs import Runs, obtain

PANELS = {"pretrained": "Pretrained", "finetune": "Finetuned", "mask": "Masked"}
NEIGHBOURS = 10
CLEARLY = 0.05


@dataclass
class TsneFlags(RunFlags):
    """What is drawn."""

    max_points: int = field(
        default=600, metadata={"help": "dev sentences drawn at most, a seeded sample"}
    )


def main(command: Sequence[str]) -> None:
    """The subcommand."""
    flags, words = read_command("tsne", TsneFlags, command, __doc__)
    runs = obtain(words, ["finetune", "mask"], flags.runs, flags.output_dir)
    rows = []
    for task in runs.tasks:
        chosen = _sample(runs, task, flags.max_points)
        labels = runs.rows(task).data.labels
        for panel in PANELS:
            identity = {
                "task": task,
                "panel": panel,
                "rows": [runs.seen(task), runs.seeds[0], len(chosen)],
                "model": model_identity(runs.inputs.model)
                if panel == "pretrained"
                else runs.identity(task, panel, runs.seeds[0]),
            }
            places = once(
                flags.output_dir / "parts",
                f"tsne-{task}-{panel}",
                identity,
                partial(_places, runs, task, panel, chosen),
            )
            for index, (place, label) in enumerate(zip(places, targets(chosen), strict=True)):
                rows.append(
                    {
                        "task": task,
                        "panel": panel,
                        "row": index,
                        "label": labels[int(label)],
                        "x": place[0],
                        "y": place[1],
                    }
                )
    publish(flags.output_dir, conclude(rows, runs.setting), rows, draw(rows))


def _sample(runs: Runs, task: str, count: int) -> Rows:
    rows = runs.rows(task).dev[""]
    count = min(count, len(rows))
    if count <= 30:
        raise FinetuneError(f"{task}: {count} sentences; t-SNE at its defaults needs over 30.")
    return rows.sample(count, runs.seeds[0])


def _places(runs: Runs, task: str, panel: str, rows: Rows) -> list[list[float]]:
    """Two coordinates per row."""
    if panel == "pretrained":
        model = from_checkpoint(AutoModel, runs.inputs.model)
    else:
        model = runs.model(task, panel, runs.seeds[0]).base_model
    states = first_token_states(model, rows, runs.inputs.backbone)
    # Its many tiny parallel loops are slower on several threads, far slower on a busy machine.
    with threadpool_limits(1):
        places = TSNE(random_state=runs.seeds[0]).fit_transform(states)
    return np.round(places.astype(float), 4).tolist()


def separation(rows: Sequence[dict[str, Any]]) -> float:
    """Share of the nearest neighbours in a map that are of the point's own class, averaged."""
    places = np.array([(row["x"], row["y"]) for row in rows])
    labels = np.array([row["label"] for row in rows])
    finder = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(places)
    # Asked without points, it leaves each point out of its own neighbours.
    near = finder.kneighbors(return_distance=False)
    return float((labels[near] == labels[:, None]).mean())


def conclude(rows: Sequence[dict[str, Any]], setting: str) -> Finding:
    """The finding from the rows of the CSV."""
    holds, seen = [], []
    for task in dict.fromkeys(row["task"] for row in rows):
        found = {
            panel: separation([r for r in rows if (r["task"], r["panel"]) == (task, panel)])
            for panel in PANELS
        }
        shares = ", ".join(f"{PANELS[p].lower()} {100 * share:.0f} %" for p, share in found.items())
        seen.append(f"{task}: neighbours of the own class {shares}")
        holds.append(min(found["finetune"], found["mask"]) - found["pretrained"] >= CLEARLY)
    return Finding(
        "tsne",
        "Finetuned and masked encoders both separate the classes, which the pretrained one mixes.",
        "Figure 4, t-SNE of [CLS] in the top block, BERT and RoBERTa.",
        "; ".join(seen),
        setting,
        f"Of the {NEIGHBOURS} nearest points in the map at least 5 in 100 more are of the own "
        "class than pretrained.",
        verdict(holds),
    )


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """A row of three panels per task, one colour per class."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    picture = Figure(figsize=(11, 3.9 * len(tasks)), layout="constrained")
    parts = np.atleast_1d(np.array(picture.subfigures(len(tasks), 1), dtype=object))
    for part, task in zip(parts, tasks, strict=True):
        found = [row for row in rows if row["task"] == task]
        labels = sorted({row["label"] for row in found})
        colours = colormaps["tab10" if len(labels) <= 10 else "tab20"]
        axes = part.subplots(1, len(PANELS))
        for axis, (panel, title) in zip(axes, PANELS.items(), strict=True):
            for index, label in enumerate(labels):
                points = [r for r in found if (r["panel"], r["label"]) == (panel, label)]
                x, y = [r["x"] for r in points], [r["y"] for r in points]
                colour = colours(index % colours.N)
                axis.scatter(x, y, s=11, color=colour, alpha=0.8, linewidths=0, label=label)
            axis.set_title(title, fontsize=12)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color("0.8")
        handles, names = axes[0].get_legend_handles_labels()
        count = len(found) // len(PANELS)
        part.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=min(len(labels), 6),
            frameon=False,
            markerscale=2,
            title=f"{task}: first token, last layer, t-SNE of {count} dev sentences",
        )
    return picture
