"""t-SNE of the first token's last-layer states: pretrained, finetuned, masked (paper B, figure 4).

scikit-learn's defaults but for the seed; three panels, one colour per class.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from transformers import AutoModel, DataCollatorWithPadding, PreTrainedModel

from finetune.encode import Backbone, Rows, by_length, encode_task
from finetune.errors import FinetuneError
from finetune.load import load_model
from finetune.tasks import load_task

PANELS = {"pretrained": "Pretrained", "finetune": "Finetuned", "mask": "Masked"}


@dataclass(frozen=True)
class TsneFigure:
    """What to draw.

    Args:
        model_name_or_path: the pretrained encoder, folder or Hub name
        runs: output folder of `python -m finetune.glue`
        task_name: task whose dev sentences are drawn
        output: file stem; `.png` and `.csv` are added
        data_dir: folder in GLUE's layout; without it, the Hub
        max_points: sentences drawn at most, a seeded sample
        max_seq_length: in tokens
        seed: of the sample and of t-SNE
    """

    model_name_or_path: str
    runs: Path
    task_name: str
    output: Path
    data_dir: Path | None = None
    max_points: int = 600
    max_seq_length: int = 128
    seed: int = 0


def draw(figure: TsneFigure) -> tuple[Path, Path]:
    """Compute the three maps and write the PNG and the CSV; returns their paths."""
    backbone = Backbone.load(figure.model_name_or_path)
    encoded = encode_task(
        load_task(figure.task_name, figure.data_dir), backbone, figure.max_seq_length
    )
    if encoded.data.task.is_regression:
        raise FinetuneError(f"--task_name {figure.task_name}: a regression has no classes to show.")
    rows = encoded.dev[""]
    count = min(figure.max_points, len(rows))
    chosen = np.random.default_rng(figure.seed).choice(len(rows), count, replace=False)
    rows = rows.select(sorted(chosen))
    points = {
        panel: _embed(first_token_states(model, rows, backbone), figure.seed)
        for panel, model in _models(figure).items()
    }
    classes = np.array([row["labels"] for row in rows])
    table = figure.output.with_suffix(".csv")
    picture = figure.output.with_suffix(".png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    _write_csv(table, points, classes, encoded.data.labels)
    _write_png(picture, points, classes, encoded.data.labels, figure.task_name)
    return picture, table


def _models(figure: TsneFigure) -> dict[str, PreTrainedModel]:
    models = {"pretrained": AutoModel.from_pretrained(figure.model_name_or_path).eval()}
    for method in ("finetune", "mask"):
        jobs = sorted((figure.runs / figure.task_name / method).glob("seed-*/all_results.json"))
        if not jobs:
            raise FinetuneError(
                f"{figure.runs}: no finished job {figure.task_name}/{method}; run "
                f"`python -m finetune.glue --task_name {figure.task_name} --method {method} "
                f"--output_dir {figure.runs} ...` first."
            )
        models[method] = load_model(jobs[0].parent, figure.model_name_or_path).base_model
    return models


@torch.inference_mode()
def first_token_states(model: PreTrainedModel, rows: Rows, backbone: Backbone) -> np.ndarray:
    """Last-layer states of the first token, [N, width], in the order of `rows`."""
    collate = DataCollatorWithPadding(backbone.tokenizer)
    order = by_length(rows)
    states = np.empty((len(rows), model.config.hidden_size), dtype=np.float32)
    for batch in np.array_split(order, -(-len(rows) // 64)):
        inputs = collate([{k: v for k, v in rows[i].items() if k != "labels"} for i in batch])
        states[batch] = model(**inputs).last_hidden_state[:, 0].numpy()
    return states


def _embed(states: np.ndarray, seed: int) -> np.ndarray:
    if len(states) <= 30:
        raise FinetuneError(f"{len(states)} sentences; t-SNE at its defaults needs over 30.")
    # Its many tiny parallel loops are slower on several threads, far slower on a busy machine.
    with threadpool_limits(1):
        return TSNE(random_state=seed).fit_transform(states)


def _write_csv(
    path: Path, points: dict[str, np.ndarray], classes: np.ndarray, labels: tuple[str, ...]
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["panel", "row", "label", "x", "y"])
        for panel, places in points.items():
            for row, (place, label) in enumerate(zip(places, classes, strict=True)):
                writer.writerow([panel, row, labels[label], f"{place[0]:.4f}", f"{place[1]:.4f}"])


def _write_png(
    path: Path,
    points: dict[str, np.ndarray],
    classes: np.ndarray,
    labels: tuple[str, ...],
    task_name: str,
) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = pyplot.get_cmap("tab10" if len(labels) <= 10 else "tab20")
    picture, axes = pyplot.subplots(1, len(points), figsize=(11, 3.9), layout="constrained")
    for axis, (panel, places) in zip(axes, points.items(), strict=True):
        for label, name in enumerate(labels):
            x, y = places[classes == label].T
            colour = colours(label % colours.N)
            axis.scatter(x, y, s=11, color=colour, alpha=0.8, linewidths=0, label=name)
        axis.set_title(PANELS[panel], fontsize=12)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.8")
    handles, names = axes[0].get_legend_handles_labels()
    picture.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=min(len(labels), 6),
        frameon=False,
        markerscale=2,
        title=f"{task_name}: first token, last layer, t-SNE of {len(classes)} dev sentences",
    )
    picture.savefig(path, dpi=150)
    pyplot.close(picture)
