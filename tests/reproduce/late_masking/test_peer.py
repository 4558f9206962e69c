"""The peer's loss is ours: same weights, same frozen corruption, stock classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoModelForMaskedLM

from pretrain.config import PretrainConfig
from pretrain.config_parser import load_config
from pretrain.data import ShardFolder
from pretrain.masking import MaskedBatch
from reproduce.late_masking.collect import curve
from reproduce.late_masking.peer import (
    Clock,
    TokenSequences,
    frozen_batches,
    frozen_loss,
    stock_batch,
    stock_model,
    stock_optimizer,
    train,
)
from reproduce.late_masking.stages import Options


@pytest.fixture
def vanilla(pretrained: Options) -> tuple[PretrainConfig, ShardFolder]:
    (run,) = [r for r in pretrained.runs() if (r.variant, r.seed) == ("vanilla_15", 1)]
    return load_config(run.folder / "config.yaml"), ShardFolder(pretrained.output_dir / "data")


def test_a_stock_model_of_our_weights_has_our_loss(
    vanilla: tuple[PretrainConfig, ShardFolder], pretrained: Options
) -> None:
    config, data = vanilla
    run = pretrained.runs()[0]
    stock = AutoModelForMaskedLM.from_pretrained(run.model)
    last = curve(run)[-1]
    assert frozen_loss(stock, frozen_batches(config, data)) == pytest.approx(last["loss"], abs=1e-4)
    uneven = replace(config, data=replace(config.data, micro_batch_size=5))
    assert frozen_loss(stock, frozen_batches(uneven, data)) == pytest.approx(last["loss"], abs=1e-4)


def test_tokens_come_back_in_reading_order() -> None:
    row = np.array([0, 10, 11, 12, 13, 2])
    batch = MaskedBatch(row[None, [0, 2, 4, 5]], np.array([[0, 2, 4, 5, 3, 1]]), row[None, [3, 1]])
    ids, labels = stock_batch(batch, mask_id=99)
    assert ids.tolist() == [[0, 99, 11, 99, 13, 2]]
    assert labels.tolist() == [[-100, 10, -100, 12, -100, -100]]


def test_the_trainer_learns_from_our_start(vanilla: tuple[PretrainConfig, ShardFolder]) -> None:
    config, data = vanilla
    batches = frozen_batches(config, data)
    before = frozen_loss(stock_model(config, data, "ours"), batches)
    clock = train(config, data, "ours", 10, bf16=False, evaluate=True)
    assert [point["step"] for point in clock.points] == [8, 10]
    assert clock.points[-1]["loss"] < before
    assert clock.points[0]["hours"] < clock.points[1]["hours"]
    # Its own initial weights are other ones.
    assert frozen_loss(stock_model(config, data, "stock"), batches) != pytest.approx(before)


def test_its_rate_is_ours(vanilla: tuple[PretrainConfig, ShardFolder]) -> None:
    config, data = vanilla
    config = replace(config, optimizer=replace(config.optimizer, warmup=0.1))
    optimizer, schedule = stock_optimizer(stock_model(config, data, "ours"), config, steps=100)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(config.optimizer.lr * 5 / 10)


def test_the_clock_does_not_count_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 101.0, 101.5, 103.5])
    monkeypatch.setattr("reproduce.late_masking.peer.time.perf_counter", lambda: next(now))
    clock = Clock(every=1, measure=lambda: 0.0)

    class State:
        global_step, max_steps = 1, 2

    clock.on_step_begin()
    clock.on_step_end(None, State, None)  # type: ignore[arg-type]
    State.global_step = 2
    clock.on_step_begin()
    clock.on_step_end(None, State, None)  # type: ignore[arg-type]
    # The second step began when the first evaluation had ended, at 101.
    assert clock.points[0]["hours"] == pytest.approx(1 / 3600)
    assert clock.points[1]["hours"] == pytest.approx(1.5 / 3600)


def test_training_on_the_sequences_of_the_shards(
    vanilla: tuple[PretrainConfig, ShardFolder],
) -> None:
    _, data = vanilla
    sequences = data.sequences("train")
    example = TokenSequences(sequences, data.vocabulary)[3]
    assert example["special_tokens_mask"].tolist() == [1, *[0] * (data.seq_len - 2), 1]
    assert np.array_equal(example["input_ids"], sequences[np.array([3])][0])
