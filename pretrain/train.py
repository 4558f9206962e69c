"""The loop: batch, forward, backward, step, log, maybe evaluate, maybe save."""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import replace
from types import FrameType

import torch

from pretrain.checkpoint import Checkpoint, RunFolder
from pretrain.config import PretrainConfig
from pretrain.data import Batches, ShardFolder
from pretrain.engine import Engine
from pretrain.evaluate import (
    evaluation_batches,
    evaluation_masking,
    unigram_log_frequencies,
    unigram_loss,
)
from pretrain.flops import training_flops
from pretrain.initialise import initialise
from pretrain.masking import mask_counts
from pretrain.metrics import Metrics
from pretrain.model import LateMaskModel
from pretrain.optim import Progress, learning_rate

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def train(config: PretrainConfig, data: ShardFolder, run: RunFolder, device: torch.device) -> bool:
    """Train until the budget is used, or until a signal asks to stop; resumes by itself.

    Args:
        config: resolved (`model.vocab_size` set).
        data: the shards.
        run: the run's folder; holds the checkpoint to go on from, if there is one.
        device: this rank's.

    Returns:
        Whether the budget is used; False after a signal: the run can go on.
    """
    checkpoint = run.newest()
    progress = replace(checkpoint.progress) if checkpoint else Progress()
    fraction = progress.fraction(config.budget)
    if fraction >= 1:
        return True
    masking = config.masking.at(fraction)

    # ------------------------------------------------------------------ model, engine, batches
    frequencies = unigram_log_frequencies(data.rows("train"), data.vocab_size)
    model = LateMaskModel(config.model, masking)
    if checkpoint:
        model.load_state_dict(checkpoint.weights())
    else:
        initialise(model, config.run.seed, torch.from_numpy(frequencies))
    engine = Engine(model, config, device)
    if checkpoint:
        engine.restore_moments(checkpoint.moments(), adam_steps=progress.step)
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
    row_flops = training_flops(config.model, masking, data.seq_len)
    if engine.rank == 0:
        _describe(config, data, engine, batches, checkpoint)
    metrics = Metrics(run.path, writes=engine.rank == 0, start=progress, fraction=fraction)
    entropy = unigram_loss(validation, frequencies)
    if not checkpoint:
        metrics.log(progress, fraction, {"valid/unigram_loss": entropy})

    # ------------------------------------------------------------------ the loop
    stop = _StopFlag()
    last_saved = last_logged = begin = time.monotonic()
    hours_before, logged_at, data_wait = progress.hours, progress.step, 0.0
    saved_at = progress.step
    upcoming = batches.steps(progress.sequences, masking)
    while True:
        if config.masking.at(fraction) != masking:
            masking = config.masking.at(fraction)
            engine.module.masking = masking
            row_flops = training_flops(config.model, masking, data.seq_len)
            upcoming.close()
            upcoming = batches.steps(progress.sequences, masking)
        waited = time.monotonic()
        micro_batches = next(upcoming)
        data_wait += time.monotonic() - waited
        # Dropout is a function of (seed, step, rank): no state to save, the same after a resume.
        torch.manual_seed(hash((config.run.seed, progress.step, engine.rank)) % 2**63)
        averages, norm = engine.step(micro_batches, learning_rate(config.optimizer, fraction))
        progress.step += 1
        progress.sequences += config.data.global_batch_size
        progress.tokens += config.data.global_batch_size * data.seq_len
        progress.flops += config.data.global_batch_size * row_flops
        fraction = progress.fraction(config.budget)

        if progress.step % config.run.log_every == 0 or fraction >= 1:
            # The ranks agree on the clock and on stopping here, where the device is waited for.
            loss, accuracy, gradient_norm = engine.mean(torch.cat([averages, norm[None]]))
            now = time.monotonic()
            progress.hours = engine.from_first(hours_before + (now - begin) / 3600)
            fraction = progress.fraction(config.budget)
            stopping, finished = engine.any(stop.requested), fraction >= 1
            steps, seconds = progress.step - logged_at, now - last_logged
            rows_per_second = steps * config.data.global_batch_size / seconds
            values = {
                "train/loss": loss,
                "train/accuracy": accuracy,
                "train/gradient_norm": gradient_norm,
                "train/lr": learning_rate(config.optimizer, fraction),
                "speed/tokens_per_second": rows_per_second * data.seq_len,
                "speed/tflops": rows_per_second * row_flops / 1e12,
                "speed/data_wait": data_wait / seconds,
                "speed/memory_gib": engine.peak_memory_gib(),
            }
            metrics.log(progress, fraction, values)
            due = engine.from_first(now - last_saved) > 60 * config.run.save_minutes
            if progress.step // config.run.eval_every > logged_at // config.run.eval_every or (
                finished
            ):
                loss, accuracy = engine.evaluate(validation)
                metrics.log(progress, fraction, {"valid/loss": loss, "valid/accuracy": accuracy})
            if (due or stopping or finished) and progress.step > saved_at:
                _save(engine, run, progress, config.run.keep_checkpoints)
                last_saved, saved_at = time.monotonic(), progress.step
            if stopping or finished:
                break
            last_logged, logged_at, data_wait = time.monotonic(), progress.step, 0.0

    metrics.close()
    upcoming.close()
    if engine.rank == 0 and finished:
        logger.info(
            "validation loss %.4f nats; knowing token frequencies only (unigram): %.4f",
            loss,
            entropy,
        )
    return finished


def _save(engine: Engine, run: RunFolder, progress: Progress, keep: int) -> None:
    weights, moments = engine.gather_state()
    if engine.rank == 0:
        path = run.save(weights, moments, progress, keep)
        logger.info("saved %s", path)


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
        logger.info("resuming from %s", checkpoint.path)


class _StopFlag:
    """Set by the first TERM, INT, USR1 or USR2: the loop saves and ends. A second ends at once."""

    def __init__(self) -> None:
        self.requested = False
        for number in STOP_SIGNALS:
            signal.signal(number, self._request)

    def _request(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.requested = True
        logger.warning(
            "%s: saving after this step; a second one ends at once", signal.Signals(number).name
        )
