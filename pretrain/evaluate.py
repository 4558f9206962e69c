"""Validation loss at fixed corruption, comparable between recipes (methods: 15 %, all [MASK]).

Training losses at different masking rates say nothing about each other. Here every model predicts
the same frozen selection of the same validation rows, with the [MASK]s entering where its recipe
lets them enter.

    python -m pretrain.evaluate runs/NAME [--rate 0.15] [--sequences 2048]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pretrain.config import load_config
from pretrain.data import Rows, ShardFolder
from pretrain.errors import PretrainError, exit_with
from pretrain.fault_tolerance.run_folder import open_checkpoint
from pretrain.masking import MaskedRows, mask_rows
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig

RATE = 0.15
SEED = 2022  # of the frozen selection: never that of a run


def evaluation_masking(masking: MaskingConfig, rate: float = RATE) -> MaskingConfig:
    """The recipe's way of inserting [MASK]s, at a fixed rate and with nothing but [MASK]s."""
    return replace(
        masking,
        rate=rate,
        loss_fraction=1.0,
        masked_share=1.0,
        random_share=0.0,
        select="token",
        schedule=[],
    )


def evaluation_batches(
    rows: Rows,
    masking: MaskingConfig,
    vocab_size: int,
    *,
    batch_size: int,
    sequences: int,
    rank: int = 0,
    num_ranks: int = 1,
) -> Iterator[MaskedRows]:
    """This rank's share of the frozen validation set, the same number of batches on each rank."""
    per_step = batch_size * num_ranks
    count = min(sequences, len(rows)) // per_step * per_step
    if count == 0:
        raise PretrainError(
            f"the validation split has {len(rows)} rows, fewer than data.micro_batch_size x ranks "
            f"= {per_step}; lower data.micro_batch_size"
        )
    for start in range(rank * batch_size, count, per_step):
        row_ids = np.arange(start, start + batch_size)
        yield mask_rows(
            rows[row_ids], row_ids, masking=masking, vocab_size=vocab_size, seed=SEED, epoch=0
        )


def unigram_log_frequencies(rows: Rows, vocab_size: int) -> NDArray[np.float32]:
    """[V] log of each piece's share of the training tokens, add-one smoothed, specials excluded."""
    counts = rows.token_counts(vocab_size).astype(np.float64) + 1
    counts[[0, 1, 2, vocab_size - 1]] = 1e-2  # never predicted
    return np.log(counts / counts.sum()).astype(np.float32)


def unigram_loss(batches: Sequence[MaskedRows], log_frequencies: NDArray[np.float32]) -> float:
    """Cross-entropy in nats of the training split's token frequencies on the evaluated targets.

    What a model reaches that knows how frequent each piece is and reads no context at all.
    """
    return float(-np.mean(np.concatenate([log_frequencies[b.labels].ravel() for b in batches])))


@torch.no_grad()
def evaluate(model: LateMaskModel, batches: Sequence[MaskedRows]) -> tuple[float, float]:
    """Mean loss in nats and accuracy over the predicted positions of `batches`."""
    model.eval()
    loss = correct = predicted = 0.0
    for batch in batches:
        output = model(*(torch.from_numpy(array) for array in batch))
        loss, correct = loss + output.loss_sum.item(), correct + output.correct.item()
        predicted += batch.labels.size
    return loss / predicted, correct / predicted


def main(argv: Sequence[str]) -> None:
    """Print loss, accuracy and the unigram loss of a run's newest checkpoint as JSON."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.evaluate", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder, or one of its checkpoints")
    parser.add_argument("--rate", type=float, default=RATE, help="share of tokens predicted")
    parser.add_argument("--sequences", type=int, default=2048, help="validation rows read")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, force=True)
    try:
        checkpoint = open_checkpoint(args.run)
        config = load_config(checkpoint.run_folder / "config.yaml")
        data = ShardFolder(config.data.path, config.data.cache_dir)
        masking = config.masking.at(checkpoint.progress.fraction(config.budget))
        model = LateMaskModel(config.model, masking)
        checkpoint.load_into(model)
        batches = list(
            evaluation_batches(
                data.rows("valid"),
                evaluation_masking(masking, args.rate),
                data.vocab_size,
                batch_size=32,
                sequences=args.sequences,
            )
        )
        loss, accuracy = evaluate(model, batches)
        frequencies = unigram_log_frequencies(data.rows("train"), data.vocab_size)
    except PretrainError as error:
        exit_with(error)
    result = {
        "checkpoint": str(checkpoint.path),
        "rate": args.rate,
        "loss": loss,
        "accuracy": accuracy,
        "unigram_loss": unigram_loss(batches, frequencies),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
