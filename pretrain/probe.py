"""What a checkpoint's frozen encoder knows about a task: logistic regression on its states.

An early signal in seconds, long before finetuning pays. A task is a folder with train.tsv and
dev.tsv, tab-separated without quoting, with a header: one or two text columns, and `label`.

    python -m pretrain.probe runs/NAME[/checkpoints/step-N] TASK [--examples 2000]

Prints dev accuracy, and that of always saying the most frequent label, as JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain.distribution import answer_version

if __name__ == "__main__":
    answer_version(sys.argv[1:])  # before the seconds of imports below

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer

from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.errors import PretrainError, exit_with
from pretrain.fault_tolerance.run_folder import open_checkpoint
from pretrain.model import LateMaskModel


@torch.no_grad()
def features(
    model: LateMaskModel, tokenizer: Tokenizer, columns: Sequence[Sequence[str]]
) -> NDArray[np.float32]:
    """[N, 2h] the first token's state and the mean of all states, of N texts or pairs of texts."""
    cls = model.config.token_id("cls")
    sep = model.config.token_id("sep")
    longest = model.architecture.longest_sequence(model.config)
    found = []
    for texts in zip(*columns, strict=True):
        ids = [cls]
        for text in texts:
            separator = [sep] if len(ids) > 1 else []  # RoBERTa's pairs: </s></s>
            ids += separator + tokenizer.encode(text, add_special_tokens=False).ids + [sep]
        states = model.encode(torch.tensor([ids[:longest]]))[0]
        found.append(torch.cat([states[0], states.mean(dim=0)]).numpy())
    return np.stack(found)


def probe(
    model: LateMaskModel, tokenizer: Tokenizer, task: Path, examples: int
) -> dict[str, float]:
    """Accuracy on dev.tsv after fitting at most `examples` rows of train.tsv."""
    model.eval()
    train, dev = (_read(task / f"{split}.tsv").head(examples) for split in ("train", "dev"))
    texts = [column for column in train if column != "label"]
    ours, theirs = (
        features(model, tokenizer, [part[column].tolist() for column in texts])
        for part in (train, dev)
    )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(ours, train["label"])
    return {
        "accuracy": float(classifier.score(theirs, dev["label"])),
        "majority": float((dev["label"] == train["label"].mode()[0]).mean()),
        "train_examples": len(train),
        "dev_examples": len(dev),
    }


def _read(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise PretrainError(f"{file} is missing: a task has train.tsv and dev.tsv")
    table = pd.read_csv(file, sep="\t", quoting=3, dtype=str, keep_default_na=False)
    if "label" not in table or not 2 <= len(table.columns) <= 3:
        raise PretrainError(
            f"{file} has columns {', '.join(table)}; expected one or two texts, and `label`"
        )
    return table


def main(argv: Sequence[str]) -> None:
    """Probe one checkpoint on one task."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.probe", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder, or one of its checkpoints")
    parser.add_argument("task", type=Path, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--examples", type=int, default=2000, help="rows read of each")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, force=True)
    try:
        checkpoint = open_checkpoint(args.run)
        config = load_config(checkpoint.run_folder / "config.yaml")
        data = ShardFolder.from_config(config.data)
        model = LateMaskModel(config.model, config.masking)
        checkpoint.load_into(model)
        tokenizer = Tokenizer.from_file(str(data.path / "tokenizer.json"))
        result = probe(model, tokenizer, args.task, args.examples)
    except PretrainError as error:
        exit_with(error)
    print(json.dumps({"checkpoint": str(checkpoint.path), **result}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
