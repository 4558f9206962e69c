"""Validation loss at fixed masking, comparable between runs (15 % of the tokens, all [MASK]).

Training losses at different masking rates can't be compared. Here every model predicts the same
frozen selection of tokens of the same validation sequences, whatever the number of ranks and the
micro-batch size, with the [MASK]s entering at the layer at which its run lets them enter.

    python -m pretrain.evaluate runs/NAME [--rate 0.15] [--sequences 2048]
    python -m pretrain.evaluate HF_FOLDER --data FOLDER    # exported, or averaged
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pretrain.distribution import answer_version

if __name__ == "__main__":
    answer_version(sys.argv[1:])  # before the seconds of imports below

import numpy as np
import torch
from numpy.typing import NDArray

from pretrain.config_parser import load_config
from pretrain.data import Sequences, ShardFolder
from pretrain.errors import PretrainError, exit_with
from pretrain.export import load
from pretrain.fault_tolerance.run_folder import open_checkpoint
from pretrain.masking import IGNORE, MaskedBatch, mask_sequences
from pretrain.model import LateMaskModel
from pretrain.recipe import MaskingConfig
from pretrain.vocabulary import Vocabulary

RATE = 0.15
SEED = 2022  # of the frozen selection: never that of a run


def evaluation_masking(masking: MaskingConfig, rate: float = RATE) -> MaskingConfig:
    """Insertion as in `masking`, at a fixed rate and with nothing but [MASK]s."""
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
    split: Sequences,
    masking: MaskingConfig,
    vocabulary: Vocabulary,
    *,
    batch_size: int,
    sequences: int,
    rank: int = 0,
    num_ranks: int = 1,
) -> Iterator[MaskedBatch]:
    """This rank's batches of the frozen validation set: the first `sequences` of the split.

    The set does not depend on `batch_size` and `num_ranks`: batch i of its batches is on rank
    i modulo `num_ranks`. Under ZeRO-3 all ranks must run the same forward passes, so each gets
    equally many batches of exactly `batch_size` sequences. What is missing for that is filled up
    with sequence 0, all labels of which are IGNORE: it costs time and counts nothing.
    """
    count = min(sequences, len(split))
    if count < 1:
        raise PretrainError(
            f"there is no validation sequence to evaluate: the split has {len(split)}, and "
            f"{sequences} were asked for"
        )
    num_batches = math.ceil(count / batch_size)
    batches_per_rank = math.ceil(num_batches / num_ranks)
    for index in range(rank, batches_per_rank * num_ranks, num_ranks):
        sequence_ids = np.arange(index * batch_size, (index + 1) * batch_size)
        is_filler = sequence_ids >= count
        sequence_ids[is_filler] = 0
        batch = mask_sequences(
            split[sequence_ids],
            sequence_ids,
            masking=masking,
            vocabulary=vocabulary,
            seed=SEED,
            epoch=0,
        )
        batch.labels[is_filler] = IGNORE
        yield batch


def unigram_log_frequencies(split: Sequences, vocabulary: Vocabulary) -> NDArray[np.float32]:
    """[V] log of each token's frequency in training, add-one smoothed, specials excluded."""
    counts = split.token_counts().astype(np.float64) + 1
    counts[vocabulary.special] = 1e-2  # never predicted
    return np.log(counts / counts.sum()).astype(np.float32)


def unigram_loss(batches: Iterable[MaskedBatch], log_frequencies: NDArray[np.float32]) -> float:
    """Cross-entropy in nats of the training split's token frequencies on the labels of `batches`.

    What a model reaches that knows how frequent each token is and reads no context at all. For the
    whole validation set pass `evaluation_batches` of one rank. NaN if there is no label.
    """
    total, predicted = 0.0, 0
    for batch in batches:
        labels = batch.labels[batch.labels != IGNORE]
        total -= float(log_frequencies[labels].sum(dtype=np.float64))
        predicted += labels.size
    return total / predicted if predicted else math.nan


@torch.no_grad()
def evaluate(model: LateMaskModel, batches: Sequence[MaskedBatch]) -> tuple[float, float]:
    """Mean loss in nats and accuracy over the predicted tokens of `batches`; NaN if none."""
    model.eval()
    loss = correct = 0.0
    predicted = 0
    for batch in batches:
        output = model(*(torch.from_numpy(array) for array in batch))
        loss += output.loss_sum.item()
        correct += output.correct.item()
        predicted += batch.num_predicted
    if predicted == 0:
        return math.nan, math.nan
    return loss / predicted, correct / predicted


def open_trained(source: Path, data_path: str | None) -> tuple[Path, LateMaskModel, ShardFolder]:
    """A checkpoint's path, its model, and the data set to evaluate it on.

    Args:
        source: a run folder (its newest checkpoint), or one of its checkpoints.
        data_path: None: the run's.
    """
    checkpoint = open_checkpoint(source)
    config = load_config(checkpoint.run_folder / "config.yaml")
    data = ShardFolder.from_config(replace(config.data, path=data_path or config.data.path))
    masking = checkpoint.last_masking(config.masking, config.budget)
    model = LateMaskModel(config.model, masking)
    model.sequence_length = data.seq_len
    checkpoint.load_into(model)
    _refuse_another_vocabulary(source, model, data)
    return checkpoint.path, model, data


def open_exported(folder: Path, data_path: str | None) -> tuple[Path, LateMaskModel, ShardFolder]:
    """The same of a Hugging Face directory, which does not know what data it was trained on."""
    if data_path is None:
        raise PretrainError(
            f"{folder} is an exported model: say with --data what to evaluate it on"
        )
    data = ShardFolder(data_path)
    model = load(folder)
    model.sequence_length = data.seq_len
    _refuse_another_vocabulary(folder, model, data)
    return folder, model, data


def _refuse_another_vocabulary(source: Path, model: LateMaskModel, data: ShardFolder) -> None:
    found = model.config.known_vocab_size  # a published model may have more rows than tokens
    if found < data.vocabulary.size:
        raise PretrainError(
            f"{source} has a vocabulary of {found} tokens, {data.location} one of "
            f"{data.vocabulary.size}; give data that was made with its tokenizer"
        )


def main(argv: Sequence[str]) -> None:
    """Print loss, accuracy and the unigram loss of a model as JSON."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="run folder, checkpoint, or exported folder")
    parser.add_argument("--data", help="data set to read; default: that of the run")
    parser.add_argument("--rate", type=float, default=RATE, help="fraction of tokens predicted")
    parser.add_argument("--sequences", type=int, default=2048, help="validation sequences read")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, force=True)
    try:
        is_exported = (args.model / "config.json").is_file()
        open_model = open_exported if is_exported else open_trained
        path, model, data = open_model(args.model, args.data)
        batches = list(
            evaluation_batches(
                data.sequences("valid"),
                evaluation_masking(model.masking, args.rate),
                data.vocabulary,
                batch_size=32,
                sequences=args.sequences,
            )
        )
        loss, accuracy = evaluate(model, batches)
        frequencies = unigram_log_frequencies(data.sequences("train"), data.vocabulary)
    except PretrainError as error:
        exit_with(error)
    result = {
        "checkpoint": str(path),
        "rate": args.rate,
        "loss": loss,
        "accuracy": accuracy,
        "unigram_loss": unigram_loss(batches, frequencies),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
