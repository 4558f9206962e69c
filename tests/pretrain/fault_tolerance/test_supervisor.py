"""What the supervisor decides, with the real loop around an engine and a clock that are told."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest

from pretrain.budget import BudgetConfig
from pretrain.config import DataConfig
from pretrain.engine import Evaluation
from pretrain.errors import NotSavedError, PretrainError
from pretrain.fault_tolerance import background
from pretrain.fault_tolerance.checkpoint import State
from pretrain.fault_tolerance.faults import ENOUGH, DivergedError
from pretrain.fault_tolerance.run_folder import open_checkpoint
from pretrain.fault_tolerance.signals import STOP_SIGNALS
from pretrain.flops import training_flops
from pretrain.recipe import MaskingConfig, MaskingStage
from tests.pretrain.fault_tolerance.trial import Trial

NAN = float("nan")


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_run_ends_with_its_budget_and_saves_its_last_step(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    assert trial.go()
    state = open_checkpoint(tmp_path).state
    assert (state.progress.step, state.progress.tokens, state.adam_steps) == (20, 20 * 16 * 32, 20)
    assert [position for position, _ in trial.batches.read[:20]] == list(range(0, 320, 16))
    # One collective a step; waiting for the last checkpoint takes some more.
    assert 20 < trial.engine.reductions < 20 + 200
    assert trial.go(resume=True)  # nothing is left to do, nothing is saved again
    assert trial.engine.steps == 20


def test_a_step_takes_one_all_reduce(tmp_path: Path) -> None:
    counts = {}
    for steps in (10, 30):
        trial = Trial(tmp_path / str(steps), steps=steps)
        before_the_end: list[int] = []
        trial.engine.loss = lambda _step, t=trial, c=before_the_end: (
            c.append(  # type: ignore[misc]
                t.engine.reductions
            )
            or 3.0
        )
        trial.go()
        counts[steps] = before_the_end[-1]
    assert counts[30] - counts[10] == 20


def test_hours_and_times_to_save_are_rank_0s(tmp_path: Path) -> None:
    trial = Trial(tmp_path, save_minutes=1.0, keep_checkpoints=99)
    trial.clock.step_seconds = 21.0
    trial.go()
    assert trial.supervisor.progress.hours == pytest.approx(20 * 21 / 3600)
    # Over a minute after 3 steps; known and begun with the next status.
    assert trial.saved == [3, 6, 9, 12, 15, 18, 20]
    # Another rank's clock counts for nothing: its share of the sums is 0.
    trial = Trial(tmp_path / "other", save_minutes=1.0, stop_after_hours=1e-6)
    trial.engine.rank, trial.engine.num_ranks = 1, 2
    trial.engine.waits_for_saver = False
    trial.clock.step_seconds = 1000.0
    seen: list[list[Any]] = []

    def sums(values: Sequence[Any]) -> list[float]:
        seen.append([float(value) for value in values])
        return [10 * 3.0, 1.0, 10.0, 1.0, 0.5, 0.0, 2.0, 0.0] if len(values) == 8 else [2.0, 0.0]

    trial.engine.sum_over_ranks = sums  # type: ignore[method-assign]
    trial.go()
    assert seen[0][3:6] == [0.0, 0.0, 0.0]
    assert trial.supervisor.progress.hours == 0.5


def test_a_signal_to_any_rank_stops_all(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.engine.others = lambda step: [0, 0, 0, float(step == 7), 0, 0, 0, 0]
    assert not trial.go()
    assert trial.saved == [7]
    trial.engine.others = lambda step: [0.0] * 8
    trial.engine.loss = lambda step: os.kill(os.getpid(), signal.SIGUSR2) or 3.0
    assert not trial.go(resume=True)
    assert trial.saved == [7, 8]


def test_time_for_one_start_stops_it(tmp_path: Path) -> None:
    trial = Trial(tmp_path, stop_after_hours=5.5 / 3600)
    assert not trial.go()
    assert trial.saved == [6]


def test_a_spike_and_a_bad_gradient_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(tmp_path, steps=ENOUGH + 8)
    losses = {ENOUGH + 3: 50.0, 5: NAN}
    trial.engine.loss = lambda step: losses.get(step, 3.0 + 0.01 * (step % 7))
    trial.engine.norm = lambda step: NAN if step == 9 else 1.0
    with caplog.at_level(logging.WARNING):
        assert trial.go()
    assert "step 5 is skipped: its loss is nan" in caplog.text
    assert "step 9 is skipped: its gradient's norm is nan" in caplog.text
    assert f"step {ENOUGH + 3} is skipped: its loss is 50.0000" in caplog.text
    assert trial.engine.weight[0] == ENOUGH + 8 - 3
    assert open_checkpoint(tmp_path).progress.skipped == 3


def test_it_goes_back_and_reads_on_behind_the_bad_data(tmp_path: Path) -> None:
    trial = Trial(tmp_path, save_every=4, max_skipped_steps=3, keep_checkpoints=9)
    bad = range(160, 208)  # positions read by steps 11 to 13
    trial.engine.norm = lambda step: NAN if trial.engine.position in bad else 1.0
    assert trial.go()
    progress = open_checkpoint(tmp_path).progress
    assert trial.engine.loaded == [8.0]  # the weights of step 8
    assert (progress.step, progress.skipped, progress.rollbacks) == (20, 3, 1)
    assert progress.sequences == 208 + 16 * 12
    taken = [position for position, _ in trial.batches.read]
    assert taken[13:15] == [208, 224]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert sum("train/loss" in line for line in lines) == 20  # those that were undone are removed


def test_without_a_checkpoint_it_goes_back_to_the_initial_weights(tmp_path: Path) -> None:
    trial = Trial(tmp_path, max_skipped_steps=2)
    trial.engine.norm = lambda step: NAN if step in (3, 4) else 1.0
    assert trial.go()
    assert trial.engine.loaded == [0.0]
    assert open_checkpoint(tmp_path).progress.sequences == 16 * 24


def test_it_gives_up_after_max_rollbacks(tmp_path: Path) -> None:
    trial = Trial(tmp_path, save_every=2, max_skipped_steps=2, max_rollbacks=2)
    trial.engine.norm = lambda step: NAN if step > 4 else 1.0
    with pytest.raises(DivergedError, match="going back 2 times did not help"):
        trial.go()
    assert DivergedError.exit_code == 65
    assert open_checkpoint(tmp_path).progress.step == 4


def test_a_passing_io_error_while_going_back_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(tmp_path, save_every=2, max_skipped_steps=2, keep_checkpoints=9)
    trial.engine.norm = lambda step: NAN if step in (9, 10) else 1.0
    monkeypatch.setattr(State, "read", classmethod(fail))
    with pytest.raises(PretrainError, match="none of its 4 checkpoints can be used"):
        trial.go()
    assert trial.saved == [2, 4, 6, 8]


def fail(*_: Any) -> State:
    raise OSError(5, "Input/output error")


def test_losses_of_an_earlier_stage_judge_no_later_one(tmp_path: Path) -> None:
    """The last checkpoint of a stage holds its losses; a resume goes as the unbroken run."""
    change = ENOUGH + 8
    masking = MaskingConfig(rate=0.5, insert_layer=1, schedule=[MaskingStage(start=0.5, rate=0.2)])
    unbroken = Trial(tmp_path / "whole", masking=masking, steps=2 * change, save_every=change)
    # At the lower rate every loss is far above all earlier ones.
    loss: Callable[[int], float] = lambda step: (3.0 if step <= change else 6.0) + step % 3 / 100  # noqa: E731
    unbroken.engine.loss = loss
    assert unbroken.go()
    resumed = Trial(tmp_path / "broken", masking=masking, steps=2 * change, save_every=change)
    resumed.engine.loss = loss
    resumed.engine.others = lambda step: [0, 0, 0, float(step == change), 0, 0, 0, 0]
    assert not resumed.go()
    assert resumed.saved == [change]
    resumed.engine.others = lambda step: [0.0] * 8
    assert resumed.go(resume=True)
    for trial in (unbroken, resumed):
        progress = open_checkpoint(trial.folder).progress
        assert (progress.skipped, progress.rollbacks) == (0, 0)
    assert [rate for _, rate in resumed.batches.read][-change:] == [0.2] * change


def test_losses_of_a_checkpoint_with_another_budget_are_of_its_own_stage(tmp_path: Path) -> None:
    masking = MaskingConfig(rate=0.5, insert_layer=1, schedule=[MaskingStage(start=0.5, rate=0.2)])
    trial = Trial(tmp_path, masking=masking, steps=2 * ENOUGH + 16)
    trial.engine.loss = lambda step: 3.0 + step % 3 / 100
    assert trial.go()
    assert open_checkpoint(tmp_path).state.losses_stage == [0.2, 1.0]
    trial.budget = BudgetConfig(steps=10 * ENOUGH)  # back at 50 %
    trial.engine.loss = lambda step: 6.0
    assert trial.go(resume=True)
    assert open_checkpoint(tmp_path).progress.skipped == 0


WARMUP = DataConfig(
    path="data", global_batch_size=16, micro_batch_size=4, initial_batch_size=4, batch_warmup=0.6
)
# Of 20 steps, the first 12 warm up: 4 of 4 sequences, 4 of 8, 4 of 12.
POSITIONS = list(accumulate([4] * 4 + [8] * 4 + [12] * 4 + [16] * 8, initial=0))


def test_a_batch_that_grows_is_counted_and_logged_as_it_is(tmp_path: Path) -> None:
    trial = Trial(tmp_path, data=WARMUP)
    positions = []
    trial.engine.loss = lambda _step: positions.append(trial.engine.position) or 3.0
    assert trial.go()
    assert positions == POSITIONS[:-1]
    progress = open_checkpoint(tmp_path).progress
    per_sequence = training_flops(trial.supervisor.config.model, trial.masking, 32)
    assert progress.sequences == POSITIONS[-1]
    assert progress.tokens == 32 * POSITIONS[-1]
    assert progress.flops == pytest.approx(POSITIONS[-1] * per_sequence)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    sizes = [line["train/batch_size"] for line in lines if "train/batch_size" in line]
    assert sizes == [b - a for a, b in pairwise(POSITIONS)]


@pytest.mark.parametrize("budget", [BudgetConfig(steps=20), BudgetConfig(hours=20 / 3600)])
def test_a_growing_batch_resumes_where_it_was(tmp_path: Path, budget: BudgetConfig) -> None:
    """By the clock, too: what a step reads is known once the one before it has ended."""
    trial = Trial(tmp_path, data=WARMUP)
    trial.budget = budget
    trial.clock.now = 0.0  # whole seconds, so that shares of the hours are exact
    positions = []

    def loss(step: int) -> float:
        positions.append(trial.engine.position)
        if step == 6:
            os.kill(os.getpid(), signal.SIGUSR2)
        return 3.0

    trial.engine.loss = loss
    assert not trial.go()
    assert trial.go(resume=True)
    assert positions == POSITIONS[:-1]


def test_a_skipped_step_counts_with_its_own_batch(tmp_path: Path) -> None:
    trial = Trial(tmp_path, data=WARMUP, save_every=1, max_skipped_steps=3, keep_checkpoints=99)
    trial.engine.norm = lambda step: NAN if 4 <= step <= 6 else 1.0
    assert trial.go()
    # Steps 4 to 6 read 4 + 8 + 8 sequences; steps 4 to 20 come again behind them.
    assert trial.engine.loaded == [3.0]
    assert open_checkpoint(tmp_path).progress.sequences == POSITIONS[-1] + 4 + 8 + 8


class SlowWriter:
    """Lets a checkpoint's writing wait until it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_write = threading.Event()
        self.fails = False
        write = background.write_part

        def slow(*arguments: Any) -> Any:
            self.may_write.wait(30)
            if self.fails:
                raise OSError(28, "No space left on device")
            return write(*arguments)

        monkeypatch.setattr(background, "write_part", slow)


def test_the_best_weights_are_saved_though_a_save_is_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SlowWriter(monkeypatch)
    trial = Trial(tmp_path, eval_every=2, save_minutes=3.5 / 60, keep_checkpoints=1, steps=10)
    # A save that is due begins at step 4; the best loss comes at step 6, while it is in flight.
    valid = {2: 8.0, 4: 8.5, 6: 2.0}

    def validation_loss(step: int) -> float:
        if step == 6:
            writer.may_write.set()
        return valid.get(step, 9.0)

    trial.engine.valid = validation_loss
    trial.engine.others = lambda step: [0, 0, 0, 0, 0, float(step == 4), 0, 0]
    monkeypatch.setattr(
        trial.engine, "evaluate", lambda _: Evaluation(validation_loss(trial.engine.steps), 0.5)
    )
    writer.may_write.set()
    trial.go()
    assert open_checkpoint(tmp_path / "checkpoints" / "step-00000006").state.valid_loss == 2.0
    assert trial.supervisor.saver.best_loss == 2.0


def test_a_best_loss_whose_save_fails_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SlowWriter(monkeypatch)
    writer.may_write.set()
    trial = Trial(tmp_path, eval_every=2, steps=10, keep_checkpoints=9)

    def validation_loss(step: int) -> float:
        writer.fails = step == 4  # the disk is full when the best weights are to be saved
        return {2: 8.0, 4: 2.0, 6: 3.0}.get(step, 9.0)

    trial.engine.valid = validation_loss
    trial.go()
    assert 6 in trial.saved  # the best of those that could be kept
    assert 4 not in trial.saved
    assert trial.supervisor.saver.best_loss == 3.0


def test_a_best_loss_amid_skipped_steps_is_not_kept(tmp_path: Path) -> None:
    trial = Trial(tmp_path, eval_every=2, steps=10, keep_checkpoints=9)
    trial.engine.norm = lambda step: NAN if step == 4 else 1.0
    trial.engine.valid = lambda step: {2: 8.0, 4: 7.0, 6: 7.5}.get(step, 9.0)
    trial.go()
    assert trial.saved == [2, 6, 10]


def test_a_last_step_that_cannot_be_saved_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SlowWriter(monkeypatch)
    writer.may_write.set()
    writer.fails = True
    trial = Trial(tmp_path)
    with pytest.raises(NotSavedError, match="step 20 could not be saved"):
        trial.go()
    assert not trial.saved


def test_progress_of_a_resumed_run_is_its_own(tmp_path: Path) -> None:
    trial = Trial(tmp_path, steps=5)
    trial.go()
    before = replace(open_checkpoint(tmp_path).progress)
    trial.budget = BudgetConfig(steps=9)
    trial.go(resume=True)
    assert open_checkpoint(tmp_path / "checkpoints" / "step-00000005").progress == before
    assert open_checkpoint(tmp_path).progress.step == 9
