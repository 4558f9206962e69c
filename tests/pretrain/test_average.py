"""Means of checkpoints: against numpy's, in stock transformers, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from pretrain import average as average_module
from pretrain import evaluate as evaluate_module
from pretrain.average import average, find_checkpoints
from pretrain.config import PretrainConfig
from pretrain.data import ShardFolder
from pretrain.errors import PretrainError
from pretrain.export import load
from pretrain.fault_tolerance.run_folder import RunFolder
from pretrain.initialise import initialise
from pretrain.main import resolve
from pretrain.model import LateMaskModel
from tests.pretrain.conftest import write_checkpoint

STEPS = (2, 4, 6, 8)


@pytest.fixture
def make_run(tiny_config: Callable[..., PretrainConfig], tmp_path: Path) -> Callable[..., Path]:
    """A run folder whose checkpoints hold other initial weights each."""

    def make(name: str, *overrides: str) -> Path:
        config = tiny_config("--model.initializer_range", "0.2", *overrides)
        config = resolve(config, ShardFolder(config.data.path))
        run = RunFolder(tmp_path / name)
        for step in STEPS:
            model = LateMaskModel(config.model, config.masking)
            initialise(model, seed=step)
            write_checkpoint(run, step, dict(model.named_parameters()))
        config.save(run.path / "config.yaml")
        return run.path

    return make


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    return make_run("run")


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def test_the_mean_is_numpys(run: Path) -> None:
    checkpoints = find_checkpoints([run], last=3)
    assert [found.progress.step for found in checkpoints] == [4, 6, 8]
    weights = [found.weights() for found in checkpoints]
    means = average(checkpoints)
    assert means.keys() == weights[0].keys()
    for name, mean in means.items():
        stacked = np.stack([each[name].numpy().astype(np.float64) for each in weights])
        np.testing.assert_array_equal(mean.numpy(), stacked.mean(axis=0).astype(np.float32))


def test_what_is_named_is_averaged_in_any_order(run: Path) -> None:
    found = find_checkpoints([checkpoint(run, 6), checkpoint(run, 2), run], last=None)
    assert [each.progress.step for each in found] == [2, 6, 8]


def test_stock_transformers_and_evaluation_take_the_mean(
    run: Path, shard_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "averaged"
    average_module.main([str(checkpoint(run, 2)), str(checkpoint(run, 4)), str(out)])
    means = average(find_checkpoints([checkpoint(run, 2), checkpoint(run, 4)], last=None))
    model = load(out).eval()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, means[name]), name
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        expected = AutoModel.from_pretrained(out).eval()(ids).last_hidden_state
        torch.testing.assert_close(model.encode(ids), expected, atol=1e-5, rtol=0)
    assert "Weights: the mean of the checkpoints of steps 2, 4\n" in (out / "README.md").read_text()

    capsys.readouterr()
    evaluate_module.main([str(out), "--data", str(shard_folder), "--sequences", "8"])
    found = json.loads(capsys.readouterr().out)
    batches = list(
        evaluate_module.evaluation_batches(
            ShardFolder(shard_folder).sequences("valid"),
            evaluate_module.evaluation_masking(model.masking),
            ShardFolder(shard_folder).vocabulary,
            batch_size=8,
            sequences=8,
        )
    )
    assert found["loss"] == pytest.approx(evaluate_module.evaluate(model, batches)[0])
    with pytest.raises(SystemExit):
        evaluate_module.main([str(out)])
    assert "say with --data what to evaluate it on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "last", "message"),
    [
        (["run"], None, "a mean needs two checkpoints"),
        (["run"], 1, "a mean needs two checkpoints"),
        (["run"], 5, "holds 4 usable checkpoints, 5 were asked for"),
        (["run", "wider"], 2, "takes one run folder, 2 sources are given"),
        (["run", "run/checkpoints/step-00000008"], None, "is given twice"),
        (["run", "wider"], None, "has shape .*give checkpoints of one run"),
        (["run", "other"], None, "optimizer.lr: was 0.003, is 0.1"),
    ],
)
def test_what_has_no_mean(
    make_run: Callable[..., Path], names: list[str], last: int | None, message: str
) -> None:
    folder = make_run("run").parent
    if "wider" in names:
        make_run("wider", "--model.intermediate_size", "128")
    if "other" in names:
        make_run("other", "--optimizer.lr", "0.1")
    with pytest.raises(PretrainError, match=f"(?s){message}"):
        find_checkpoints([folder / name for name in names], last)


def test_nothing_is_written_over(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        average_module.main([str(run), str(run), "--last", "2"])
    assert end.value.code == 2
    assert f"{run} exists; choose another folder" in capsys.readouterr().err
