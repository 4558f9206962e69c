"""The checks before the queue, and the arithmetic that docs/cluster.md states."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.tiny_run import Run, write_data
from pretrain.budget import Progress
from pretrain.config_parser import parse_args
from pretrain.data import ShardFolder
from pretrain.fault_tolerance.checkpoint import State, part_name, write_part
from pretrain.main import resolve

ROOT = Path(__file__).parents[2]


Answer = tuple[int, str, str]  # exit code, stdout, stderr
Check = Callable[..., Answer]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    spec = importlib.util.spec_from_file_location("check", ROOT / "slurm/check.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    monkeypatch.chdir(ROOT)

    def run(*words: object) -> Answer:
        code = module.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def pretrain(check: Check, tmp_path: Path) -> Check:
    def run(*flags: object, settings: tuple[object, ...] = ()) -> Answer:
        own = ("--run.output_dir", tmp_path / "run", "--data.path", tmp_path / "data")
        large = ("--config", "configs/pretrain/large.yaml")
        return check(*flags, "pretrain", *large, *own, *settings)

    return run


def test_the_batch_is_dealt_out(pretrain: Check, tmp_path: Path) -> None:
    flags = ("--ranks-per-node", 8, "--later")
    code, answer, told = pretrain("--nodes", 4, "--submitting", *flags)
    assert (code, answer) == (0, f"4 {tmp_path}/run\n")
    assert "64 sequences a micro-batch x 32 ranks x 2 accumulated = 4096 sequences" in told
    # 24 ranks: refused before the queue, done on two nodes when a third is what is left of four.
    code, _, told = pretrain("--nodes", 3, "--submitting", *flags)
    assert code == 2
    assert "nodes that would do: 1, 2, 4, 8" in told
    assert pretrain("--nodes", 3, *flags)[:2] == (0, f"2 {tmp_path}/run\n")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("--masking.insert_layer", 99), "masking.insert_layer is 99"),
        (("--optimizer.learning_rate", 1), "unknown key optimizer.learning_rate"),
        (("--run.deepspeed_config", "none.json"), "none.json does not exist"),
        (("--run.output_dir", "/dev/null/run"), "/dev/null/run can't be written"),
        ((), "data is not a folder"),
    ],
)
def test_what_is_wrong_with_a_pretraining_is_named(
    pretrain: Check, settings: tuple[object, ...], named: str
) -> None:
    code, answer, told = pretrain(settings=settings)
    assert (code, answer) == (2, "")
    assert named in told
    assert "Traceback" not in told


def test_a_run_that_is_resumed_must_have_the_same_config(check: Check, tmp_path: Path) -> None:
    run = Run(write_data(tmp_path / "data"), tmp_path / "run")
    words = ("--config", run.config, "--run.output_dir", run.folder)
    config = parse_args([str(word) for word in words])
    step = run.folder / "checkpoints/step-00000003"
    step.mkdir(parents=True)
    part = write_part(step / part_name(0, 1), {"weight/w@0": 2}, torch.zeros(2))
    State(Progress(step=3), shapes={"w": [2]}, parts={part_name(0, 1): part}).write(
        step / "state.json"
    )
    resolve(config, ShardFolder(config.data.path)).save(run.folder / "config.yaml")
    before = (run.folder / "config.yaml").read_bytes()
    code, _, told = check("pretrain", *words, "--run.log_every", 7)
    assert code == 0
    assert f"resumes from {step}" in told
    assert "run.log_every: was 1, is 7" in told
    code, _, told = check("pretrain", *words, "--optimizer.lr", 1)
    assert code == 2
    assert "optimizer.lr: was 0.003, is 1" in told
    assert (run.folder / "config.yaml").read_bytes() == before


def test_sources_of_the_pipeline_must_be_there(check: Check, corpus: Path, tmp_path: Path) -> None:
    settings = ("preprocess", "--config", corpus, "--output", tmp_path / "data")
    assert check(*settings)[:2] == (0, f"1 {tmp_path}/data\n")
    code, _, told = check(*settings, "--sources.paths", f"[{tmp_path}/none.jsonl]")
    assert code == 2
    assert "none.jsonl" in told


def test_glue_needs_its_model_tasks_and_flags(check: Check, tasks: Path, tmp_path: Path) -> None:
    out = ("--output_dir", tmp_path / "out", "--model_name_or_path")
    settings = ("--config", "configs/glue/roberta.yaml", "--task_name", "sst2", "rte", *out)
    right = ("--data_dir", tasks)
    assert check("glue", *settings, tasks, *right)[:2] == (0, f"1 {tmp_path}/out\n")
    for words, named in (
        ((tmp_path / "none", *right), "none: no such folder"),
        ((tasks, "--data_dir", tmp_path), "no folder SST-2"),
        ((tasks, *right, "--learning_rat", "1"), "Did you mean learning_rate?"),
    ):
        code, _, told = check("glue", *settings, *words)
        assert code == 2
        assert named in told
    config = tmp_path / "glue.yaml"
    config.write_text("learning_rat: 1\n")
    code, _, told = check("glue", f"--config={config}", *settings[2:], tasks, *right)
    assert code == 2 and "glue.yaml: unknown flag learning_rat" in told


def test_the_hours_in_the_docs_follow_from_the_flops() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pretrain.flops", "--config", "configs/pretrain/large.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (forward,) = re.findall(r"^all +\S+ +(\S+)$", result.stdout, flags=re.M)
    operations = 3 * float(forward) * 1e6 * 128 * 4096 * 23_000
    text = (ROOT / "docs/cluster.md").read_text()
    (stated,) = re.findall(r"= (\S+) FLOPs", text)
    assert float(stated) == pytest.approx(operations, rel=0.01)
    machines = [(8, 989e12, 0.4), (32, 989e12, 0.35), (8, 312e12, 0.4), (32, 312e12, 0.35)]
    rows = {
        row: [float(cell) for cell in re.search(rf"^\| {row} \|(.*)\|$", text, re.M)[1].split("|")]
        for row in ("hours", "GPU hours", "cost")
    }
    for column, (gpus, speed, share) in enumerate(machines):
        hours = operations / (gpus * speed * share) / 3600
        assert rows["hours"][column] == pytest.approx(hours, abs=0.06)
        assert rows["GPU hours"][column] == pytest.approx(gpus * hours, abs=0.3)
        price = 2.5 if speed > 400e12 else 1.5
        assert rows["cost"][column] == pytest.approx(price * gpus * hours, abs=0.7)
