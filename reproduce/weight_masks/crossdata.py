"""Representations carried to another task (paper, its intrinsic evaluation).

The encoder of a run of task A is frozen, and a linear probe (scikit-learn's logistic regression on
standardised first-token states) learns task B on it; the pretrained encoder is the yardstick. The
claim, that masked encoders carry as much as finetuned ones, is judged over all A ≠ B and seeds: it
holds if masked is less than a point below finetuned on average, it fails if it is a point or more
below and the sign-flip permutation test gives p < 0.05; fewer pairs than could give that decide
nothing.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, PreTrainedModel

from finetune.errors import FinetuneError
from finetune.jobs.plan import model_identity
from finetune.masks.apply import from_checkpoint
from finetune.results.comparison import LEVEL, Pairs, overall
from finetune.tasks.encode import EncodedTask
from reproduce.weight_masks.finding import Finding, publish, verdict
from reproduce.weight_masks.flags import RunFlags, read_command
from reproduce.weight_masks.forward import first_token_states, score_classes, targets
from reproduce.weight_masks.parts import once
from reproduce.weight_masks.picture import heat, panels
from reproduce.weight_masks.runs import Runs, obtain

METHODS = {"finetune": "finetuned", "mask": "masked"}
PRETRAINED = "pretrained"
POINT = 0.01
FEWEST = 6  # pairs, of which the test can give p < 0.05


@dataclass
class CrossdataFlags(RunFlags):
    """What the probe sees."""

    max_probe_rows: int = field(
        default=2000, metadata={"help": "training rows of a probe at most, a seeded sample"}
    )


def main(command: Sequence[str]) -> None:
    """The subcommand."""
    flags, words = read_command("crossdata", CrossdataFlags, command, __doc__)
    runs = obtain(words, list(METHODS), flags.runs, flags.output_dir)
    if len(runs.tasks) < 2:
        raise FinetuneError(f"--task_name: found {runs.tasks}, expected two tasks or more.")
    rows = []
    encoders = [(PRETRAINED, PRETRAINED, runs.seeds[0])]
    encoders += list(product(runs.tasks, METHODS, runs.seeds))
    for (source, method, seed), target in product(encoders, runs.tasks):
        identity = {
            "encoder": model_identity(runs.inputs.model)
            if method == PRETRAINED
            else runs.identity(source, method, seed),
            "rows": runs.seen(target),
            "max_probe_rows": flags.max_probe_rows,
            "seed": seed,
        }
        found = once(
            flags.output_dir / "parts",
            f"crossdata-{source}-{method}-{seed}-{target}",
            identity,
            partial(_probe, runs, source, method, seed, target, flags.max_probe_rows),
        )
        row = {"source": source, "method": method, "target": target}
        metric = runs.rows(target).data.task.metrics[0]
        rows.append({**row, "metric": metric, "seed": seed, "score": found})
    publish(flags.output_dir, conclude(rows, runs.setting), rows, draw(rows))


def _probe(runs: Runs, source: str, method: str, seed: int, target: str, most: int) -> float:
    if method == PRETRAINED:
        encoder = from_checkpoint(AutoModel, runs.inputs.model)
    else:
        encoder = runs.model(source, method, seed).base_model
    return probe(encoder, runs.rows(target), runs, most, seed)


def probe(
    encoder: PreTrainedModel, encoded: EncodedTask, runs: Runs, most: int, seed: int
) -> float:
    """Dev score of a linear probe for the task `encoded` on the frozen `encoder`."""
    train, dev = encoded.train.sample(most, seed), encoded.dev[""]
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    linear.fit(first_token_states(encoder, train, runs.inputs.backbone), targets(train))
    answers = linear.predict(first_token_states(encoder, dev, runs.inputs.backbone))
    return score_classes(encoded.data, dev, answers)


def carried(rows: Sequence[dict[str, Any]]) -> Pairs:
    """Finetuned against masked, over all sources, other targets and seeds."""
    found = {(r["source"], r["method"], r["target"], r["seed"]): r["score"] for r in rows}
    values = [
        (score, found[source, "mask", target, seed])
        for (source, method, target, seed), score in found.items()
        if method == "finetune" and source != target
    ]
    return Pairs("", "", "", *np.array(values).T)


def conclude(rows: Sequence[dict[str, Any]], setting: str) -> Finding:
    """The finding from the rows of the CSV."""
    pairs = carried(rows)
    difference, p_value = overall([pairs])
    pretrained = {r["target"]: r["score"] for r in rows if r["method"] == PRETRAINED}
    others = [r for r in rows if r["method"] != PRETRAINED and r["source"] != r["target"]]
    gains = {
        method: statistics.mean(
            r["score"] - pretrained[r["target"]] for r in others if r["method"] == method
        )
        for method in METHODS
    }
    holds = None
    if len(pairs.first) >= FEWEST and difference > -POINT:
        holds = True
    elif p_value < LEVEL:
        holds = False
    return Finding(
        "crossdata",
        "Masked encoders carry to another task what finetuned ones do.",
        "Abstract and intrinsic evaluation: masked models' representations hold what tasks need.",
        f"probes on another task's encoder: masked {100 * difference:+.1f} points against "
        f"finetuned (p = {p_value:.3f}, {len(pairs.first)} pairs); against pretrained, finetuned "
        f"{100 * gains['finetune']:+.1f}, masked {100 * gains['mask']:+.1f}",
        setting,
        "Agrees if masked is less than a point below finetuned on average; disagrees if it is "
        f"more and p < {LEVEL:g} (sign-flip permutation test).",
        verdict([holds]),
    )


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Encoders × targets, medians over seeds; the colour is the gain over the pretrained one."""
    encoders = list(dict.fromkeys((row["source"], row["method"]) for row in rows))
    encoders.sort(key=lambda encoder: [PRETRAINED, *METHODS].index(encoder[1]))
    tasks = list(dict.fromkeys(row["target"] for row in rows))
    scores = np.array(
        [
            [
                statistics.median(
                    r["score"]
                    for r in rows
                    if (r["source"], r["method"], r["target"]) == (*encoder, task)
                )
                for task in tasks
            ]
            for encoder in encoders
        ]
    )
    names = [
        source if method == PRETRAINED else f"{source}, {METHODS[method]}"
        for source, method in encoders
    ]
    figure, axes = panels(["dev score of a linear probe\ncolour: gain over pretrained"])
    gains = scores - scores[0]
    reach = float(np.abs(gains).max()) or 1.0
    heat(axes[0, 0], gains, names, tasks, (-reach, reach), scores)
    axes[0, 0].set(xlabel="probed on", ylabel="encoder of")
    return figure
