"""Branches: what they begin with, what they refuse, and whole runs that go on from a checkpoint."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.tiny_run import ROOT, Run, write_data
from pretrain.branch import branch, find_source
from pretrain.config import PretrainConfig
from pretrain.errors import PretrainError
from pretrain.fault_tolerance.checkpoint import State
from pretrain.fault_tolerance.run_folder import RunFolder, open_checkpoint
from tests.pretrain.conftest import write_checkpoint

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "v": torch.arange(4.0)}
TRAPEZOID = ("--optimizer.schedule", "trapezoid", "--optimizer.decay")


@pytest.fixture
def source(tiny_config: Callable[..., PretrainConfig], tmp_path: Path) -> Path:
    """A run folder with checkpoints of steps 3 and 9 of 12."""
    run = RunFolder(tmp_path / "source")
    for step in (3, 9):
        file = write_checkpoint(run, step, WEIGHTS) / "state.json"
        state = State.read(file)
        state.losses, state.valid_loss, state.data_sha256 = [3.0], 2.0, "data"
        state.progress.skipped_in_row = state.progress.rollbacks = 2
        state.write(file)
    tiny_config(*TRAPEZOID, "0").save(run.path / "config.yaml")
    return run.path


@pytest.fixture
def branched(
    tiny_config: Callable[..., PretrainConfig], source: Path
) -> Callable[..., PretrainConfig]:
    """The config of a branch of `source`, with overrides."""

    def make(*overrides: str) -> PretrainConfig:
        given = ("--run.branch_from", str(source), *TRAPEZOID)
        return tiny_config(*given, "0.25", *overrides)

    return make


def test_a_branch_begins_with_a_copy_of_the_newest_checkpoint(
    branched: Callable[..., PretrainConfig],
    source: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = RunFolder(tmp_path / "branch")
    with caplog.at_level(logging.INFO):
        branch(branched(), run, "data")
    assert f"branched from {source}/checkpoints/step-00000009: step 9, 144 seq" in caplog.text
    assert "learning rate" not in caplog.text  # its decay begins at step 9
    theirs = open_checkpoint(source)
    shutil.rmtree(source)
    ours = run.newest(verify=True)
    assert ours is not None
    for name, tensor in WEIGHTS.items():
        assert torch.equal(ours.weights()[name], tensor)
    assert ours.progress == replace(theirs.progress, skipped_in_row=0, rollbacks=0)
    assert (ours.state.losses, ours.state.adam_steps) == ([3.0], theirs.state.adam_steps)
    assert run.best_loss() == math.inf  # a branch's own
    assert run.rollback_target() is not None


def test_a_branch_of_one_checkpoint_with_another_recipe(
    branched: Callable[..., PretrainConfig],
    source: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    step = str(source / "checkpoints" / "step-00000003")
    other = ("--masking.rate", "0.3", "--optimizer.lr", "1e-3", "--data.global_batch_size", "32")
    run = RunFolder(tmp_path / "branch")
    copy = branch(branched("--run.branch_from", step, *other), run, "data")
    assert copy.progress.step == 3
    assert copy.state.losses == []  # at another rate they have another level
    assert "the learning rate is 0.001 from here on, the source's was 0.003" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("--model.intermediate_size", "32"), "model.intermediate_size: was 64, is 32"),
        (("--run.seed", "1"), "run.seed: was 0, is 1"),
        (("--masking.late_layers", "1"), "masking.late_layers: was 0, is 1"),
        (("--masking.mask_embedding", "shared"), "masking.mask_embedding: was separate, is shared"),
        (
            ("--optimizer.name", "muon", "--optimizer.gradient_clipping", "0"),
            "optimizer.name: was adamw, is muon",
        ),
        (("--budget.steps", "9"), "used the whole budget.*: step 9, .* raise budget"),
        (("--run.branch_from", "nowhere"), "nowhere holds no complete checkpoint"),
        (("--run.init_from", "stock"), "run.init_from is stock and run.branch_from"),
    ],
)
def test_what_must_be_equal_is_named(
    branched: Callable[..., PretrainConfig], overrides: tuple[str, str], message: str
) -> None:
    with pytest.raises(PretrainError, match=f"(?s){message}"):
        find_source(branched(*overrides), "data")


def test_other_data_is_refused(branched: Callable[..., PretrainConfig]) -> None:
    with pytest.raises(PretrainError, match=r"run\.branch_from: .* was trained on other data"):
        find_source(branched(), "other")


def test_a_damaged_checkpoint_is_refused_and_nothing_is_left(
    branched: Callable[..., PretrainConfig], source: Path, tmp_path: Path
) -> None:
    folder = source / "checkpoints" / "step-00000009"
    part = next(folder.glob("part-*"))
    part.write_bytes(part.read_bytes()[:-1] + b"\1")
    run = RunFolder(tmp_path / "branch")
    with pytest.raises(PretrainError, match=r"step-00000009 is damaged: .* has sha256"):
        branch(branched("--run.branch_from", str(folder)), run, "data")
    assert run.newest() is None


def test_a_folder_is_of_one_branch(branched: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "branch")
    run.path.mkdir()
    run.claim(branched())
    branch(branched(), run, "data")
    run.claim(branched())
    with pytest.raises(PretrainError, match=r"run\.branch_from: was .*, is other"):
        run.claim(branched("--run.branch_from", "other"))


# Whole runs: the source has a constant rate from step 2 on.
RECIPE = ("--budget.steps", "15", *TRAPEZOID, "0", "--run.keep_checkpoints", "99")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("branch") / "data")


@pytest.fixture(scope="module")
def trunk(data: Path) -> Run:
    run = Run(data, data.parent / "trunk", *RECIPE, launcher="torchrun")
    run.go()
    return run


def test_a_branch_goes_on_as_its_source_did_to_the_bit(
    data: Path, trunk: Run, tmp_path: Path
) -> None:
    start = trunk.folder / "checkpoints" / "step-00000005"
    run = Run(data, tmp_path / "run", *RECIPE, "--run.branch_from", start, launcher="torchrun")
    assert f"branched from {start}: step 5, 60 sequences read" in run.go()
    assert run.losses() == {step: loss for step, loss in trunk.losses().items() if step > 5}


@pytest.mark.long
def test_a_decay_is_cut_from_a_constant_rate_on_other_ranks_and_outlives_its_source(
    data: Path, trunk: Run, tmp_path: Path
) -> None:
    copy = shutil.copytree(trunk.folder, tmp_path / "trunk")
    start = ("--run.branch_from", copy / "checkpoints" / "step-00000010")
    run = Run(
        data, tmp_path / "run", *RECIPE, *start, *TRAPEZOID, "0.3333333333333333",
        "--run.deepspeed_config", ROOT / "configs/deepspeed/zero3.json", ranks=1,
    )  # fmt: skip
    output = run.go()
    assert "it jumps" not in output
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["train/lr"] for line in lines if "train/lr" in line]
    # The rate of the n-th step of the decay is that before it, as in every schedule here.
    expected = [3e-3 * (1 - math.sqrt(n / 5)) for n in range(5)]
    assert rates == pytest.approx(expected, rel=1e-6)
    shutil.rmtree(copy)
    assert "resuming from" in run.go("--budget.steps", "16")
    assert sorted(run.losses()) == list(range(11, 17))
