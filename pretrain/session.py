"""Everything that stands before a run's first step: the model with its weights, the engine, data.

A run resumes from its newest usable checkpoint, or begins with initial weights where there is none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.batches import Batches
from pretrain.budget import Progress
from pretrain.config import PretrainConfig
from pretrain.data import ShardFolder, ShardHashes
from pretrain.engine import Engine
from pretrain.errors import PretrainError
from pretrain.evaluate import (
    evaluation_batches,
    evaluation_masking,
    unigram_log_frequencies,
    unigram_loss,
)
from pretrain.fault_tolerance.checkpoint import Checkpoint
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.fault_tolerance.supervisor import Supervisor
from pretrain.fault_tolerance.upload import Uploads
from pretrain.fault_tolerance.watchdog import Watchdog
from pretrain.initialise import initialise
from pretrain.masking import MaskedBatch, mask_counts
from pretrain.metrics import Recorder
from pretrain.model import LateMaskModel
from pretrain.source import Source
from pretrain.timing import Trace, peak_tflops

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """What the loop works with."""

    config: PretrainConfig
    engine: Engine
    batches: Batches
    validation: list[MaskedBatch]
    """This rank's share of the frozen validation set."""
    supervisor: Supervisor
    recorder: Recorder
    trace: Trace
    unigram_loss: float
    """Of the validation set: what knowing token frequencies alone gives, nats."""

    def close(self) -> None:
        """Write what is open, and give the memory back."""
        self.recorder.close()
        self.trace.close()
        self.engine.close()


def begin(
    config: PretrainConfig,
    data: ShardFolder,
    run: RunFolder,
    device: torch.device,
    watchdog: Watchdog,
    checkpoint: Checkpoint | None,
    uploads: Uploads | None = None,
) -> Session:
    """Build everything on this rank; collective.

    Args:
        config: resolved: what the data and the source of the weights say is filled in.
        data: the shards.
        run: the run's folder.
        device: this rank's.
        watchdog: told what this rank does.
        checkpoint: to resume from, the same on all ranks; None: a new run.
        uploads: of the checkpoints, where they are also to lie at a URL.

    Raises:
        PretrainError: the checkpoint belongs to other data, or settings can't work together.
    """
    if checkpoint and checkpoint.state.data_sha256 not in ("", data.sha256):
        raise PretrainError(
            f"{checkpoint.path} was trained on other data: {data.location}/manifest.json has "
            "another sha256 by now; put the old data back, or choose another run.output_dir"
        )
    watchdog.enter("making the model")
    model = LateMaskModel(config.model, config.masking)
    model.sequence_length = data.seq_len
    if not checkpoint:
        set_initial_weights(model, config)
    engine = Engine(model, config, device)
    if checkpoint:
        watchdog.enter(f"reading {checkpoint.path}")
        engine.load(checkpoint)
    watchdog.enter("opening the data")
    is_main = engine.rank == 0
    hashes = None
    if config.data.verify and not data.cache:  # which compares what it fetches
        hashes = ShardHashes(data, engine.rank, engine.num_ranks)
    batches = Batches(
        data,
        seed=config.run.seed,
        global_batch_size=config.data.global_batch_size,
        micro_batch_size=config.data.micro_batch_size,
        initial_batch_size=config.data.initial_batch_size,
        shuffle_shards=config.data.shuffle_shards,
        rank=engine.rank,
        num_ranks=engine.num_ranks,
        hashes=hashes,
    )
    progress = checkpoint.progress if checkpoint else Progress()
    fraction = progress.fraction(config.budget)
    peak = peak_tflops(config.run, device, engine.precision)
    recorder = Recorder(
        run.path,
        config.run,
        writes=is_main,
        start=progress,
        fraction=fraction,
        sums=checkpoint.state.log_sums if checkpoint else {},
        peak_tflops=peak * engine.num_ranks if peak else None,
    )
    watchdog.enter("counting tokens")
    entropy = engine.on_main_process(lambda: _unigram_loss(config, data))
    if math.isnan(entropy):
        raise PretrainError(
            f"{data.location}: the validation sequences hold special tokens alone, so nothing can "
            "be predicted; look at the data with `python -m pipeline inspect`"
        )
    if is_main:
        _describe(config, data, engine, batches, checkpoint)
    if not checkpoint:
        recorder.log(progress, fraction, {"valid/unigram_loss": entropy})
    return Session(
        config=config,
        engine=engine,
        batches=batches,
        validation=list(_validation(config, data, engine.rank, engine.num_ranks)),
        supervisor=Supervisor(
            config,
            run,
            engine,
            recorder,
            watchdog,
            seq_len=data.seq_len,
            data_sha256=data.sha256,
            resumed_from=checkpoint.state if checkpoint else None,
            best_loss=engine.on_main_process(run.best_loss),
            initial_weights=lambda: InitialWeights(config),
            uploads=uploads,
        ),
        recorder=recorder,
        trace=Trace(config.run, run.path, engine.rank),
        unigram_loss=entropy,
    )


def set_initial_weights(model: LateMaskModel, config: PretrainConfig) -> None:
    """The weights that a new run begins with."""
    initialise(model, config.run.seed)
    if config.run.init_from:
        Source(config.run.init_from).start(model)


class InitialWeights:
    """The weights that a run began with, for one that goes back beyond its first checkpoint."""

    adam_steps = 0

    def __init__(self, config: PretrainConfig) -> None:
        model = LateMaskModel(config.model, config.masking)
        set_initial_weights(model, config)
        self._weights = dict(model.named_parameters())

    def kinds(self, name: str) -> list[str]:
        """No moments."""
        return ["weight"] if name in self._weights else []

    def read(self, _kind: str, name: str, start: int, count: int) -> Tensor:
        """[count] elements of the flattened parameter `name`."""
        return self._weights[name].detach().view(-1)[start : start + count]


def _unigram_loss(config: PretrainConfig, data: ShardFolder) -> float:
    """What knowing token frequencies alone gives on the whole validation set."""
    frequencies = unigram_log_frequencies(data.sequences("train"), data.vocabulary)
    return unigram_loss(_validation(config, data), frequencies)


def _validation(
    config: PretrainConfig, data: ShardFolder, rank: int = 0, num_ranks: int = 1
) -> Iterator[MaskedBatch]:
    """A rank's share of the frozen set; all of it where there is one."""
    return evaluation_batches(
        data.sequences("valid"),
        evaluation_masking(config.masking),
        data.vocabulary,
        batch_size=config.data.micro_batch_size,
        sequences=config.run.eval_sequences,
        rank=rank,
        num_ranks=num_ranks,
    )


def _describe(
    config: PretrainConfig,
    data: ShardFolder,
    engine: Engine,
    batches: Batches,
    checkpoint: Checkpoint | None,
) -> None:
    parameters = sum(math.prod(shape) for shape in engine.shapes().values())
    logger.info(
        "data: %s sequences of %d tokens in %s",
        f"{len(batches.sequences):,}",
        data.seq_len,
        data.location,
    )
    logger.info(
        "model: %s parameters, %d layers, %d decoder layers",
        f"{parameters:,}",
        config.model.num_hidden_layers,
        config.masking.late_layers,
    )
    starts = [0.0, *(stage.start for stage in config.masking.schedule)]
    for start, masking in zip(starts, config.masking.stages(), strict=True):
        counts = mask_counts(masking, data.seq_len)
        logger.info(
            "sequence%s: %d tokens = %d visible + %d [MASK] that enter at layer %d + %d dropped; "
            "%d predicted",
            f" from {100 * start:.0f} % of the run on" if start else "",
            data.seq_len,
            counts.visible,
            counts.masked,
            masking.insertion_layer,
            counts.dropped,
            counts.predicted,
        )
    logger.info(
        "step: %d sequences a micro-batch x %d ranks x %d accumulated = %d sequences = %s tokens",
        config.data.micro_batch_size,
        engine.num_ranks,
        batches.accumulation_steps(config.data.global_batch_size),
        config.data.global_batch_size,
        f"{config.data.global_batch_size * data.seq_len:,}",
    )
    if config.data.initial_batch_size:
        logger.info(
            "batch: grows from %d to %d sequences over the first %g %% of the run",
            config.data.initial_batch_size,
            config.data.global_batch_size,
            100 * config.data.batch_warmup,
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
