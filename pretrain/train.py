"""The loop: batch, forward, backward, update, log, maybe evaluate, maybe save.

This file is the algorithm; `fault_tolerance/supervisor.py` decides whether an update is applied
and what follows it. Each step costs one all-reduce besides DeepSpeed's (`agree`), which is also the
only wait for the device besides DeepSpeed's check of the gradient norm.
"""

from __future__ import annotations

import logging

import torch

from pretrain.fault_tolerance.status import StepBatch
from pretrain.memory import peak_memory_gib
from pretrain.optim import learning_rate
from pretrain.session import Session

logger = logging.getLogger(__name__)


def train(session: Session) -> bool:
    """Train until the budget is used, or until something asks to stop.

    Returns:
        Whether the budget is used; False: the run was stopped and can be resumed.

    Raises:
        PretrainError: something to fix; some kinds have exit codes of their own.
    """
    supervisor = session.supervisor
    for batch in supervisor.steps(session.batches):  # resumes, goes back, stops, saves at the end
        take_step(session, batch)
    return supervisor.finished


def take_step(session: Session, batch: StepBatch) -> None:
    """One optimizer step on all ranks, and what is due after it."""
    engine = session.engine
    supervisor = session.supervisor
    recorder = session.recorder

    session.trace.before_step()
    torch.manual_seed(batch.dropout_seed)
    engine.module.masking = batch.masking
    output = engine.forward_backward(batch.micro_batches)
    verdict = supervisor.agree(output)
    rate = learning_rate(session.config.optimizer, batch.fraction)
    update = engine.update(rate, skip=verdict.skip)
    due = supervisor.complete_step(verdict, update)

    recorder.add_step(verdict)
    if due.log:
        values = {
            "train/gradient_norm": float(update.gradient_norm),
            "train/lr": rate,
            "train/batch_size": batch.size,
            "train/skipped_steps": supervisor.progress.skipped,
            "train/rollbacks": supervisor.progress.rollbacks,
            "speed/memory_gib": peak_memory_gib(engine.device),
        }
        recorder.log_steps(
            supervisor.progress,
            supervisor.fraction,
            values | engine.parts.take(),
            stalled=supervisor.saver.stalled,
        )
    if due.evaluate:
        evaluate(session)
    supervisor.save_if_due()


def evaluate(session: Session) -> None:
    """Measure, log and report the validation loss of the present weights."""
    supervisor, recorder = session.supervisor, session.recorder
    supervisor.watchdog.enter("evaluating")
    with recorder.speed.pause():
        found = session.engine.evaluate(session.validation)
    values = {"valid/loss": found.loss, "valid/accuracy": found.accuracy}
    recorder.log(supervisor.progress, supervisor.fraction, values)
    supervisor.set_validation_loss(found.loss)
    if supervisor.finished and session.engine.rank == 0:
        progress = supervisor.progress
        logger.info(
            "%s is used: %s steps, %.4g tokens, %.3g FLOPs, %.2f hours",
            progress.nearest_limit(session.config.budget),
            f"{progress.step:,}",
            progress.tokens,
            progress.flops,
            progress.hours,
        )
        logger.info(
            "validation loss %.4f nats; knowing token frequencies only (unigram): %.4f",
            found.loss,
            session.unigram_loss,
        )
        if found.loss >= session.unigram_loss:
            logger.warning(
                "WARNING this encoder knows no more than that: give it a larger budget, or a "
                "smaller vocabulary (tokenizer.vocab_size of the data)"
            )
