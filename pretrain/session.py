"""Everything that stands before a run's first step: the model with its weights, the engine, the
batches, from nothing or from a checkpoint.

A run that goes back to a checkpoint without ending begins another session.
"""

from __future__ import annotations

import logging
import platform
import time
from dataclasses import dataclass, replace

import torch

from pretrain.config import PretrainConfig
from pretrain.data import Batches, ShardFolder, ShardHashes
from pretrain.engine import Engine
from pretrain.errors import PretrainError
from pretrain.evaluate import (
    evaluation_batches,
    evaluation_masking,
    unigram_log_frequencies,
    unigram_loss,
)
from pretrain.export import start_from
from pretrain.fault_tolerance.background import Saver
from pretrain.fault_tolerance.checkpoint import Checkpoint, State
from pretrain.fault_tolerance.faults import LossGuard
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.initialise import initialise
from pretrain.masking import MaskedRows, mask_counts
from pretrain.metrics import Metrics, Speed
from pretrain.model import LateMaskModel
from pretrain.optim import Progress
from pretrain.timing import Trace

logger = logging.getLogger(__name__)


@dataclass
class Session:
    """What the loop works with."""

    progress: Progress
    engine: Engine
    batches: Batches
    validation: list[MaskedRows]
    guard: LossGuard
    metrics: Metrics
    speed: Speed
    trace: Trace
    saver: Saver
    hashes: ShardHashes | None
    hours_before: float
    """Of the progress, when the session began at `began`."""
    began: float
    best: float
    """Lowest validation loss that a checkpoint has kept."""
    entropy: float
    """Unigram loss of `validation`."""
    data_sha256: str

    @property
    def hours(self) -> float:
        """Of training, over all restarts, by this rank's clock."""
        return self.hours_before + (time.monotonic() - self.began) / 3600

    def save(self, valid_loss: float | None) -> None:
        """Begin to save what is trained by now; on all ranks at the same step."""
        self.saver.begin(self.engine.share(), self.state(valid_loss))

    def state(self, valid_loss: float | None) -> State:
        """What a checkpoint says besides the tensors."""
        return State(
            progress=replace(self.progress),
            shapes=self.engine.shapes(),
            adam_steps=self.engine.updates,
            losses=self.guard.remembered,
            valid_loss=valid_loss,
            data_sha256=self.data_sha256,
            written_by=f"{self.engine.num_ranks} ranks under ZeRO-{self.engine.stage}, "
            f"{self.engine.precision}, on {platform.node()}",
        )

    def close(self) -> None:
        """Free what the next session needs."""
        self.metrics.close()
        self.trace.close()
        self.engine.close()


def begin(
    config: PretrainConfig,
    data: ShardFolder,
    run: RunFolder,
    device: torch.device,
    back_from: Progress | None = None,
) -> Session:
    """From the newest good checkpoint, or from the initial weights where there is none.

    Args:
        config: resolved (`model.vocab_size` set).
        data: the shards.
        run: the run's folder.
        device: this rank's.
        back_from: where a run stood that goes back: the rows up to there are jumped over.

    Raises:
        PretrainError: no checkpoint can be used, or it belongs to other data.
    """
    rank = torch.distributed.get_rank()
    checkpoint = _agreed_checkpoint(run, rank, back_from)
    if checkpoint and checkpoint.state.data_sha256 not in ("", data.sha256):
        raise PretrainError(
            f"{checkpoint.path} was trained on other data: {data.path}/manifest.json has another "
            "sha256 by now; put the old data back, or choose another run.output_dir"
        )
    progress = replace(checkpoint.progress) if checkpoint else Progress()
    if back_from:
        progress.sequences, progress.hours = back_from.sequences, back_from.hours
        progress.skipped, progress.rollbacks = back_from.skipped, back_from.rollbacks + 1
    masking = config.masking.at(progress.fraction(config.budget))

    frequencies = unigram_log_frequencies(data.rows("train"), data.vocab_size)
    model = LateMaskModel(config.model, masking)
    if checkpoint:
        checkpoint.load_into(model)
    else:
        initialise(model, config.run.seed, torch.from_numpy(frequencies))
        if config.run.init_from:
            start_from(model, config.run.init_from)
    engine = Engine(model, config, device)
    if checkpoint:
        engine.restore(checkpoint)
    batches = Batches(
        data,
        seed=config.run.seed,
        global_batch_size=config.data.global_batch_size,
        micro_batch_size=config.data.micro_batch_size,
        rank=engine.rank,
        num_ranks=engine.num_ranks,
    )
    validation = list(
        evaluation_batches(
            data.rows("valid"),
            evaluation_masking(masking),
            data.vocab_size,
            batch_size=config.data.micro_batch_size,
            sequences=config.run.eval_sequences,
            rank=engine.rank,
            num_ranks=engine.num_ranks,
        )
    )
    fraction = progress.fraction(config.budget)
    if rank == 0:
        _describe(config, data, engine, batches, checkpoint)
    metrics = Metrics(run.path, config.run, writes=rank == 0, start=progress, fraction=fraction)
    entropy = unigram_loss(validation, frequencies)
    if back_from:
        metrics.log(progress, fraction, {"train/rollbacks": progress.rollbacks})
    elif not checkpoint:
        metrics.log(progress, fraction, {"valid/unigram_loss": entropy})
    return Session(
        progress=progress,
        engine=engine,
        batches=batches,
        validation=validation,
        guard=LossGuard(config.run, checkpoint.state.losses if checkpoint else []),
        metrics=metrics,
        speed=Speed(progress),
        trace=Trace(config.run, run.path, rank),
        saver=Saver(run, config, rank, engine.num_ranks),
        hashes=ShardHashes(data, rank, engine.num_ranks) if config.data.verify else None,
        hours_before=progress.hours,
        began=time.monotonic(),
        best=run.best_loss(),
        entropy=entropy,
        data_sha256=data.sha256,
    )


def _agreed_checkpoint(run: RunFolder, rank: int, back_from: Progress | None) -> Checkpoint | None:
    """What rank 0 finds good, every byte compared; the same on all ranks."""
    found: list[Checkpoint | PretrainError | None] = [None]
    if rank == 0:
        run.remove_unfinished()
        try:
            found = [run.good() if back_from else run.newest(verify=True)]
        except PretrainError as error:
            found = [error]
    torch.distributed.broadcast_object_list(found)
    (checkpoint,) = found
    if isinstance(checkpoint, PretrainError):
        raise checkpoint
    return checkpoint


def _describe(
    config: PretrainConfig,
    data: ShardFolder,
    engine: Engine,
    batches: Batches,
    checkpoint: Checkpoint | None,
) -> None:
    parameters = sum(p.numel() for p in engine.names.values())
    rows = f"{len(batches.rows):,}"
    logger.info("data: %s rows of %d tokens in %s", rows, data.seq_len, data.path)
    logger.info(
        "model: %s parameters, %d layers, %d late layers",
        f"{parameters:,}",
        config.model.num_hidden_layers,
        config.masking.late_layers,
    )
    starts = [0.0, *(stage.start for stage in config.masking.schedule)]
    for start, masking in zip(starts, config.masking.stages(), strict=True):
        counts = mask_counts(masking, data.seq_len)
        logger.info(
            "row%s: %d tokens = %d visible + %d [MASK] that enter at layer %d + %d left out; "
            "%d predicted",
            f" from {100 * start:.0f} % of the run on" if start else "",
            data.seq_len,
            counts.visible,
            counts.holes,
            masking.insert_layer,
            counts.dropped,
            counts.predicted,
        )
    logger.info(
        "step: %d rows a micro-batch x %d ranks x %d accumulated = %d rows = %s tokens",
        config.data.micro_batch_size,
        engine.num_ranks,
        batches.accumulation_steps,
        config.data.global_batch_size,
        f"{config.data.global_batch_size * data.seq_len:,}",
    )
    logger.info(
        "device: %s, %s, %d threads a rank, ZeRO-%d",
        engine.device,
        engine.precision,
        torch.get_num_threads(),
        engine.stage,
    )
    if checkpoint:
        logger.info(
            "resuming from %s (step %d, written by %s)",
            checkpoint.path,
            checkpoint.progress.step,
            checkpoint.state.written_by,
        )
