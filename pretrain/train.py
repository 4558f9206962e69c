"""The loop: batch, forward, backward, step, log, maybe evaluate, maybe save."""

from __future__ import annotations

import logging
from enum import Enum
from typing import NamedTuple

import torch

from pretrain.config import PretrainConfig
from pretrain.data import ShardFolder
from pretrain.fault_tolerance.background import NotSavedError
from pretrain.fault_tolerance.faults import DivergedError
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.fault_tolerance.signals import StopFlag
from pretrain.fault_tolerance.watchdog import Watchdog
from pretrain.flops import training_flops
from pretrain.memory import peak_memory_gib
from pretrain.metrics import peak_tflops
from pretrain.optim import learning_rates
from pretrain.session import Session, begin

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
    stop = StopFlag(config.run.stop_after_hours)
    while True:
        end = loop(config, session, stop, watchdog)
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


class Words(NamedTuple):
    """What each rank says with its loss; all hear the sum. The ranks go by rank 0's clock."""

    stop: float
    save_due: float
    hours: float
    saver_done: float
    saver_failed: float

    @classmethod
    def of(cls, session: Session, stop: StopFlag) -> Words:
        """This rank's."""
        leads = session.engine.rank == 0
        clock = leads * session.saver.due, leads * session.hours
        return cls(stop.requested or (leads and stop.time_is_up), *clock, *session.saver.status())


def loop(config: PretrainConfig, session: Session, stop: StopFlag, watchdog: Watchdog) -> End:
    """Steps until there is a reason to end; what was trained is saved, unless the end is bad."""
    settings, rows = config.run, config.data.global_batch_size
    engine, progress, guard = session.engine, session.progress, session.guard
    speed, saver, seq_len = session.speed, session.saver, session.batches.data.seq_len
    peak = peak_tflops(settings, engine.device, engine.precision)
    fraction = progress.fraction(config.budget)
    masking = config.masking.at(fraction)
    upcoming = session.batches.steps(progress.sequences, masking)

    while True:
        if config.masking.at(fraction) != masking:
            masking = engine.module.masking = config.masking.at(fraction)
            upcoming.close()
            upcoming = session.batches.steps(progress.sequences, masking)
            guard.forget()

        # ---------------------------------------------------------------- the step
        session.trace.before_step()
        watchdog.doing("waiting for data")
        if session.hashes:
            session.hashes.check()
        with speed.waiting():
            micro_batches = next(upcoming)
        watchdog.doing()
        # Dropout is a function of (seed, step, rank): no state to save, the same after a resume.
        torch.manual_seed(hash((settings.seed, progress.step, engine.rank)) % 2**63)
        rates = learning_rates(config.optimizer, fraction)
        step = engine.step(micro_batches, rates, guard.fault, list(Words.of(session, stop)))
        heard = Words(*step.notes)
        flops = rows * training_flops(config.model, masking, seq_len)
        progress.advance(rows, rows * seq_len, flops, skipped=step.fault is not None)
        progress.hours = heard.hours
        if step.fault is None:
            guard.accept(step.loss)
        elif engine.rank == 0:
            logger.warning("step %d is skipped: %s", progress.step, step.fault)
        saver.agree(heard.saver_done, heard.saver_failed)
        fraction = progress.fraction(config.budget)
        finished, stopping = fraction >= 1, heard.stop > 0
        bad = progress.skipped_in_row >= settings.max_skipped_steps

        # ---------------------------------------------------------------- log, evaluate, save
        if progress.step % settings.log_every == 0 or finished or stopping or bad:
            values = {
                "train/loss": step.loss,
                "train/accuracy": step.accuracy,
                "train/gradient_norm": step.gradient_norm,
                "train/lr": rates.full,
                "train/skipped_steps": progress.skipped,
                "speed/memory_gib": peak_memory_gib(engine.device),
            }
            values |= speed.take(progress, saver.stalled, peak and peak * engine.num_ranks)
            session.metrics.log(progress, fraction, values | engine.parts.take())
        valid_loss, best = None, False
        if progress.step % settings.eval_every == 0 or finished:
            watchdog.doing("evaluating")
            with speed.pause():
                valid_loss, accuracy = engine.evaluate(session.validation)
            values = {"valid/loss": valid_loss, "valid/accuracy": accuracy}
            session.metrics.log(progress, fraction, values)
            best = settings.keep_best and valid_loss < session.best
            session.best = min(valid_loss, session.best)
        if asked := settings.save_every and progress.step % settings.save_every == 0:
            saver.wait(engine.add_up)  # for this very step
        due = (heard.save_due or asked or best) and progress.skipped_in_row == 0
        if due and saver.phase == "idle":
            session.save(valid_loss)
        if finished or stopping or bad:
            break

    # -------------------------------------------------------------------- the end
    upcoming.close()
    watchdog.doing("saving")
    saver.wait(engine.add_up)
    if bad and not finished:
        return End.BAD
    if saver.saved_step != progress.step:
        session.save(valid_loss)
        saver.wait(engine.add_up)
        if saver.saved_step != progress.step:
            raise NotSavedError(
                f"step {progress.step} could not be saved in {saver.run.checkpoints} (reason "
                "above); make room, or the folder writable, and the same command goes on from the "
                "checkpoint before"
            )
    if engine.rank == 0 and finished:
        logger.info(
            "validation loss %.4f nats; knowing token frequencies only (unigram): %.4f",
            valid_loss,
            session.entropy,
        )
    return End.FINISHED if finished else End.STOPPED
