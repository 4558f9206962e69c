"""All decisions about a run's survival: when it stops, saves, skips a step, goes back.

The loop (`train.py`) asks and obeys. All ranks decide alike: what differs between them (a signal, a
clock, a disk) goes into one `RankStatus` (`status.py`), which all add up once a step, and rank 0
alone looks at the run's folder.
"""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from pretrain.budget import Progress
from pretrain.config import PretrainConfig
from pretrain.errors import NotSavedError
from pretrain.fault_tolerance.background import Saver
from pretrain.fault_tolerance.checkpoint import State, WeightSource
from pretrain.fault_tolerance.faults import DivergedError, LossGuard
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.fault_tolerance.signals import StopSignal
from pretrain.fault_tolerance.status import Due, RankStatus, StepBatch, Verdict
from pretrain.fault_tolerance.upload import Uploads
from pretrain.fault_tolerance.watchdog import Watchdog
from pretrain.flops import training_flops
from pretrain.recipe import MaskingConfig

if TYPE_CHECKING:
    from pretrain.batches import Batches
    from pretrain.engine import Engine, StepOutput, Update
    from pretrain.metrics import Recorder

logger = logging.getLogger(__name__)


class Supervisor:
    """Decides for one run, on every rank alike."""

    def __init__(
        self,
        config: PretrainConfig,
        run: RunFolder,
        engine: Engine,
        recorder: Recorder,
        watchdog: Watchdog,
        *,
        seq_len: int,
        data_sha256: str,
        resumed_from: State | None,
        best_loss: float,
        initial_weights: Callable[[], WeightSource],
        uploads: Uploads | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over a run.

        Args:
            config: resolved.
            run: its folder.
            engine: has the weights to begin with.
            recorder: is rewound where the run goes back.
            watchdog: told what this rank does.
            seq_len: length of the sequences.
            data_sha256: of the data set's manifest, for checkpoints to remember.
            resumed_from: of the checkpoint whose weights these are; None: the initial ones.
            best_loss: lowest validation loss that a checkpoint holds.
            initial_weights: what to go back to where no checkpoint was made yet.
            uploads: of the checkpoints; None: they stay where they are written.
            clock: seconds.
        """
        self.config = config
        self.progress = replace(resumed_from.progress) if resumed_from else Progress()
        self.saver = Saver(
            run,
            config.run,
            rank=engine.rank,
            num_ranks=engine.num_ranks,
            uploads=uploads,
            best_loss=best_loss,
            clock=clock,
        )
        self.saver.saved = resumed_from
        self._run = run
        self._engine = engine
        self._recorder = recorder
        self.watchdog = watchdog
        self._seq_len = seq_len
        self._data_sha256 = data_sha256
        self._initial_weights = initial_weights
        self._clock = clock
        self._began = clock()
        self._hours_before = self.progress.hours
        self._guard = LossGuard(config.run.spike_sigmas, resumed_from)
        self._stop_signal = StopSignal()
        self._status = RankStatus()
        self._valid_loss: float | None = None

    @property
    def fraction(self) -> float:
        """Share of the budget that is used, 0 to 1."""
        return self.progress.fraction(self.config.budget)

    @property
    def finished(self) -> bool:
        """Whether the budget is used."""
        return self.fraction >= 1

    def steps(self, batches: Batches) -> Generator[StepBatch, None, None]:
        """Batches until the run ends, which is decided here.

        In order: a stage of `masking.schedule` may begin, or the batch grow; a batch is read and
        yielded; where too many steps in a row had to be skipped, the run goes back to an earlier
        checkpoint; once the budget is used, or a signal or `run.stop_after_hours` asks to stop, the
        last step is saved.

        Raises:
            DivergedError: going back did not help, as often as it was allowed.
            NotSavedError: the last checkpoint could not be written, or not uploaded.
        """
        while not self._ending:
            masking, size = self._stage
            self._guard.enter_stage([masking.rate, float(masking.insertion_layer)])
            # What is made ahead is of this stage; a new one, known only now, begins afresh.
            with closing(batches.steps(self.progress.sequences, masking, size)) as upcoming:
                while not self._ending and not self._diverging and self._stage == (masking, size):
                    self.watchdog.enter("waiting for data")
                    with self._recorder.speed.waiting():
                        micro_batches = next(upcoming)
                    self.watchdog.enter()
                    yield StepBatch(
                        micro_batches,
                        size=size,
                        masking=masking,
                        fraction=self.fraction,
                        dropout_seed=self._dropout_seed,
                    )
            if self._diverging and not self.finished:
                self._roll_back()
        self._save_last_step()

    def agree(self, output: StepOutput) -> Verdict:
        """Add up what all ranks contribute after their backward passes, and judge the step."""
        is_main = self._engine.rank == 0
        hours = (self._clock() - self._began) / 3600
        limit = self.config.run.stop_after_hours
        out_of_time = is_main and limit is not None and hours > limit
        saves_done, saves_failed = self.saver.status()
        self._status = RankStatus(
            loss_sum=output.loss_sum,
            correct=output.correct,
            num_predicted=output.num_predicted,
            stop_requests=self._stop_signal.received or out_of_time,
            hours=is_main * (self._hours_before + hours),
            save_due=is_main and self.saver.due,
            saves_done=saves_done,
            saves_failed=saves_failed,
        ).all_reduce(self._engine)
        count = self._status.num_predicted
        loss = float(self._status.loss_sum) / count if count else math.nan
        accuracy = float(self._status.correct) / count if count else math.nan
        fault = self._guard.fault(loss) if count else "its sequences hold special tokens alone"
        return Verdict(loss, accuracy, count, fault)

    def complete_step(self, verdict: Verdict, update: Update) -> Due:
        """Count a step whose update was made, suppressed or impossible; what follows it."""
        fault = verdict.fault
        if fault is None and not update.applied:
            fault = f"its gradient's norm is {float(update.gradient_norm)}"
        masking, sequences = self._stage
        self.progress.advance(
            sequences=sequences,
            tokens=sequences * self._seq_len,
            flops=sequences * training_flops(self.config.model, masking, self._seq_len),
        )
        self.progress.hours = self._status.hours
        self.progress.count_outcome(skipped=fault is not None)
        if fault is None:
            self._guard.accept(verdict.loss)
        elif self._engine.rank == 0:
            logger.warning("step %d is skipped: %s", self.progress.step, fault)
        self.saver.advance(self._status.saves_done, self._status.saves_failed)
        self._valid_loss = None
        settings = self.config.run
        last = self._ending or self._diverging
        return Due(
            log=self.progress.step % settings.log_every == 0 or last,
            evaluate=self.progress.step % settings.eval_every == 0 or self.finished,
        )

    def set_validation_loss(self, loss: float) -> None:
        """Of the weights as they are now."""
        self._valid_loss = loss

    def save_if_due(self) -> None:
        """Begin to save if it is time, if this step was asked for, or if it is the best so far."""
        settings = self.config.run
        asked = settings.save_every is not None and self.progress.step % settings.save_every == 0
        loss = math.inf if self._valid_loss is None else self._valid_loss
        best = settings.keep_best and loss < self.saver.best_loss
        if self.progress.skipped_in_row or not (asked or best or self._status.save_due):
            return
        if asked or best:  # this very step: a save in flight must end first
            self.wait_for_save()
        if self.saver.phase == "idle":
            self.begin_save()

    def begin_save(self) -> None:
        """Copy what is trained by now, and start to write it; none may be in flight."""
        engine = self._engine
        state = State(
            progress=replace(self.progress),
            shapes=engine.shapes(),
            adam_steps=engine.adam_steps,
            losses=self._guard.remembered,
            losses_stage=self._guard.stage,
            log_sums=dict(self._recorder.sums),
            valid_loss=self._valid_loss,
            data_sha256=self._data_sha256,
            written_by=f"{engine.num_ranks} ranks under ZeRO-{engine.stage}, "
            f"{engine.precision}, on {platform.node()}",
        )
        self.saver.begin(engine.fragments(), state)

    def wait_for_save(self) -> None:
        """Until no save is in flight; collective."""
        self.watchdog.enter("saving")
        self.saver.wait(self._engine.sum_over_ranks)

    @property
    def _ending(self) -> bool:
        return self.finished or self._status.stop_requests > 0

    @property
    def _diverging(self) -> bool:
        return self.progress.skipped_in_row >= self.config.run.max_skipped_steps

    @property
    def _stage(self) -> tuple[MaskingConfig, int]:
        """Masking and global batch size of the step that is next or under way."""
        fraction = self.fraction
        return self.config.masking.at(fraction), self.config.data.batch_size_at(fraction)

    @property
    def _dropout_seed(self) -> int:
        return hash((self.config.run.seed, self.progress.step, self._engine.rank)) % 2**63

    def _roll_back(self) -> None:
        """Go back to the last checkpoint before the skipped steps, and read on behind them."""
        bad = self.progress
        self.wait_for_save()
        if bad.rollbacks >= self.config.run.max_rollbacks:
            raise DivergedError(
                f"step {bad.step}: {bad.skipped_in_row} steps in a row had to be skipped, and "
                f"going back {bad.rollbacks} times did not help; lower optimizer.lr or set "
                "optimizer.gradient_clipping, and look at the data around sequence "
                f"{bad.sequences:,}"
            )
        self.watchdog.enter("going back to a checkpoint")
        target = self._engine.on_main_process(self._run.rollback_target)
        self._engine.load(target or self._initial_weights())
        self._guard = LossGuard(self.config.run.spike_sigmas, target.state if target else None)
        self.progress = replace(
            target.progress if target else Progress(),
            sequences=bad.sequences,
            hours=bad.hours,
            skipped=bad.skipped,
            rollbacks=bad.rollbacks + 1,
        )
        sums = target.state.log_sums if target else {}
        self._recorder.rewind(self.progress, self.fraction, sums)
        if self._engine.rank == 0:
            logger.warning(
                "%d steps in a row were skipped: going back from step %d to %d, and on behind the "
                "%s sequences that were read",
                bad.skipped_in_row,
                bad.step,
                self.progress.step,
                f"{bad.sequences:,}",
            )

    def _save_last_step(self) -> None:
        self.wait_for_save()
        if not self._last_step_is_saved:
            self.begin_save()
            self.wait_for_save()
        if not self._last_step_is_saved:
            raise NotSavedError(
                f"step {self.progress.step} could not be saved in {self._run.checkpoints} (reason "
                "above); make room, or the folder writable, and the same command resumes from the "
                "checkpoint before"
            )
        if uploads := self.saver.uploads:
            self.watchdog.enter("uploading the last checkpoint")
            self._engine.on_main_process(uploads.finish)

    @property
    def _last_step_is_saved(self) -> bool:
        return self.saver.saved is not None and self.saver.saved.progress == self.progress
