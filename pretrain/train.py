"""The loop: batch, forward, backward, step, log, maybe evaluate, maybe save."""

from __future__ import annotations

import logging
import math
import time
from enum import Enum

import torch

from pretrain.background import NotSavedError, Saver
from pretrain.config import PretrainConfig
from pretrain.data import ShardFolder, ShardHashes
from pretrain.faults import DivergedError
from pretrain.flops import training_flops
from pretrain.metrics import peak_tflops
from pretrain.optim import learning_rate
from pretrain.run_folder import RunFolder
from pretrain.session import Session, begin
from pretrain.signals import StopFlag
from pretrain.timing import Trace
from pretrain.watchdog import Watchdog

logger = logging.getLogger(__name__)


class End(Enum):
    """Why the loop ended."""

    FINISHED = "the budget is used"
    STOPPED = "a signal, or run.stop_after_hours"
    BAD = "too many steps were skipped in a row"


def train(
    config: PretrainConfig,
    data: ShardFolder,
    run: RunFolder,
    device: torch.device,
    watchdog: Watchdog,
) -> bool:
    """Train until the budget is used, or until something asks to stop; resumes by itself.

    Args:
        config: resolved (`model.vocab_size` set).
        data: the shards.
        run: the run's folder; holds the checkpoint to go on from, if there is one.
        device: this rank's.
        watchdog: told what this rank does.

    Returns:
        Whether the budget is used; False: the run was stopped and can go on.

    Raises:
        PretrainError: something to mend; some kinds have exit codes of their own.
    """
    session = begin(config, data, run, device)
    stop, began = StopFlag(), time.monotonic()
    while True:
        end = loop(config, data, run, session, stop, began, watchdog)
        session.close()
        if end != End.BAD:
            return end == End.FINISHED
        bad = session.progress
        if bad.rollbacks >= config.run.max_rollbacks:
            raise DivergedError(
                f"step {bad.step}: {bad.skipped_in_row} steps in a row had to be skipped, and "
                f"going back {bad.rollbacks} times did not help; lower optimizer.lr or set "
                "optimizer.gradient_clipping, and look at the data around row "
                f"{bad.sequences:,}"
            )
        watchdog.doing("going back to a checkpoint")
        session = begin(config, data, run, device, back_from=bad)
        if session.engine.rank == 0:
            logger.warning(
                "%d steps in a row were skipped: going back from step %d to %d, and on with the "
                "rows behind the %s that were seen",
                *(bad.skipped_in_row, bad.step, session.progress.step, f"{bad.sequences:,}"),
            )


def loop(
    config: PretrainConfig,
    data: ShardFolder,
    run: RunFolder,
    session: Session,
    stop: StopFlag,
    began: float,
    watchdog: Watchdog,
) -> End:
    """Steps until there is a reason to end; what was trained is saved, unless the end is bad."""
    settings, budget, batch_size = config.run, config.budget, config.data.global_batch_size
    engine, progress, guard = session.engine, session.progress, session.guard
    saver = Saver(run, config, engine.rank, engine.num_ranks)
    trace = Trace(settings, run.path, engine.rank)
    hashes = ShardHashes(data, engine.rank, engine.num_ranks) if config.data.verify else None
    peak = peak_tflops(settings, engine.device, engine.precision)
    fraction = progress.fraction(budget)
    masking = config.masking.at(fraction)
    row_flops = training_flops(config.model, masking, data.seq_len)
    upcoming = session.batches.steps(progress.sequences, masking)
    first_step, hours_before, begin_time = progress.step, progress.hours, time.monotonic()
    last_saved = last_logged = begin_time
    logged_at, data_wait, stalled, valid_loss = progress.step, 0.0, 0.0, None

    while True:
        if config.masking.at(fraction) != masking:
            masking = config.masking.at(fraction)
            engine.module.masking = masking
            row_flops = training_flops(config.model, masking, data.seq_len)
            upcoming.close()
            upcoming = session.batches.steps(progress.sequences, masking)
            guard.forget()

        # ---------------------------------------------------------------- the step
        trace.before(progress.step - first_step)
        watchdog.doing("waiting for data")
        if hashes:
            hashes.check()
        waited = time.monotonic()
        micro_batches = next(upcoming)
        now = time.monotonic()
        data_wait += now - waited
        watchdog.doing()
        # Dropout is a function of (seed, step, rank): no state to save, the same after a resume.
        torch.manual_seed(hash((settings.seed, progress.step, engine.rank)) % 2**63)
        lr = learning_rate(config.optimizer, fraction)
        leads = engine.rank == 0  # the ranks go by its clock
        over = now - began > 3600 * (settings.stop_after_hours or math.inf)
        due = now - last_saved > 60 * settings.save_minutes
        hours = hours_before + (now - begin_time) / 3600
        told = [stop.requested, leads * over, leads * due, leads * hours, *saver.status()]
        step = engine.step(micro_batches, lr, guard.fault, told)
        asked, time_over, save_due, progress.hours, saver_done, saver_failed = step.notes

        progress.step += 1
        progress.sequences += batch_size
        progress.tokens += batch_size * data.seq_len
        progress.flops += batch_size * row_flops
        if step.fault is None:
            guard.accept(step.loss)
            progress.skipped_in_row = 0
        else:
            progress.skipped += 1
            progress.skipped_in_row += 1
            if leads:
                logger.warning("step %d is skipped: %s", progress.step, step.fault)
        fraction = progress.fraction(budget)
        finished, stopping = fraction >= 1, bool(asked or time_over)
        bad = progress.skipped_in_row >= settings.max_skipped_steps
        saver.agree(saver_done, saver_failed)

        # ---------------------------------------------------------------- log, evaluate, save
        if progress.step % settings.log_every == 0 or finished or stopping or bad:
            now = time.monotonic()
            seconds = now - last_logged
            rows_per_second = (progress.step - logged_at) * batch_size / seconds
            values = {
                "train/loss": step.loss,
                "train/accuracy": step.accuracy,
                "train/gradient_norm": step.gradient_norm,
                "train/lr": lr,
                "train/skipped_steps": progress.skipped,
                "speed/tokens_per_second": rows_per_second * data.seq_len,
                "speed/tflops": rows_per_second * row_flops / 1e12,
                "speed/data_wait": data_wait / seconds,
                "speed/checkpoint_stall": (saver.stalled - stalled) / seconds,
                "speed/memory_gib": engine.peak_memory_gib(),
            }
            if peak:
                values["speed/mfu"] = values["speed/tflops"] / (peak * engine.num_ranks)
            session.metrics.log(progress, fraction, values | engine.parts.take(seconds))
            last_logged, logged_at = now, progress.step
            data_wait, stalled = 0.0, saver.stalled
        best = False
        if progress.step % settings.eval_every == 0 or finished:
            watchdog.doing("evaluating")
            before = time.monotonic()
            valid_loss, accuracy = engine.evaluate(session.validation)
            last_logged += time.monotonic() - before  # speed is training's
            session.metrics.log(
                progress, fraction, {"valid/loss": valid_loss, "valid/accuracy": accuracy}
            )
            best = settings.keep_best and valid_loss < session.best
            session.best = min(valid_loss, session.best)
        else:
            valid_loss = None
        every = settings.save_every and progress.step % settings.save_every == 0
        if every:
            saver.wait(engine.add_up)  # this very step was asked for
        if (save_due or every or best) and saver.phase == "idle" and not progress.skipped_in_row:
            saver.begin(engine.share(), session.state(valid_loss))
            last_saved = time.monotonic()
        if finished or stopping or bad:
            break

    # -------------------------------------------------------------------- the end
    trace.close()
    upcoming.close()
    watchdog.doing("saving")
    saver.wait(engine.add_up)
    if bad and not finished:
        return End.BAD
    if saver.saved_step != progress.step:
        saver.begin(engine.share(), session.state(valid_loss))
        saver.wait(engine.add_up)
        if saver.saved_step != progress.step:
            raise NotSavedError(
                f"step {progress.step} could not be saved in {run.checkpoints} (reason above); "
                "make room, or the folder writable, and the same command goes on from the "
                "checkpoint before"
            )
    if leads and finished:
        logger.info(
            "validation loss %.4f nats; knowing token frequencies only (unigram): %.4f",
            valid_loss,
            session.entropy,
        )
    return End.FINISHED if finished else End.STOPPED
