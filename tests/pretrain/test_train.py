"""Whole runs in real processes: two ranks, resume to the bit, other layouts, kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoModel

ROOT = Path(__file__).parents[2]
STEPS, BREAK = 12, 6


def command(config_file: Path, ranks: int, output: Path, *overrides: str) -> list[str]:
    script = ["pretrain/main.py", "--config", str(config_file), "--run.output_dir", str(output)]
    if ranks > 1:  # a free port each: runs of other tests must not meet
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        return [sys.executable, *launcher, *script, *overrides]
    return [sys.executable, *script, *overrides]


def start(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*args),  # type: ignore[arg-type]
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(*args: object, code: int = 0) -> str:
    process = start(*args)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output[-4000:]
    return output


def losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: r["train/loss"] for r in records if "train/loss" in r}


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.jsonl").exists() and max(losses(folder), default=0) >= step:
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"step {step} never came: {process.communicate()[0][-3000:]}")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, tiny_config_file: Path) -> Path:
    """A run of 12 steps on 2 ranks under ZeRO-2, every checkpoint kept."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    every = ("--run.save_minutes", "0", "--run.keep_checkpoints", "99")
    run(tiny_config_file, 2, folder, *every)
    return folder


def broken_off(unbroken: Path, folder: Path) -> Path:
    """A copy as if the run had been killed after step 6."""
    shutil.copytree(unbroken, folder, ignore=shutil.ignore_patterns("hf"))
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > BREAK:
            shutil.rmtree(checkpoint)
    return folder


def test_a_run_learns_and_leaves_what_the_contract_names(unbroken: Path) -> None:
    curve = losses(unbroken)
    assert sorted(curve) == list(range(1, STEPS + 1))
    assert curve[STEPS] < curve[1] - 0.5
    assert {p.name for p in unbroken.iterdir()} >= {
        *("config.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "hf")
    }
    AutoModel.from_pretrained(unbroken / "hf")


def test_resuming_on_the_same_layout_is_exact(
    unbroken: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    folder = broken_off(unbroken, tmp_path / "run")
    output = run(tiny_config_file, 2, folder)
    assert "resuming from" in output
    assert losses(folder) == losses(unbroken)  # to the bit, dropout included


@pytest.mark.parametrize(
    ("ranks", "stage"),
    [
        (1, 0),
        (2, 3),
        pytest.param(1, 2, marks=pytest.mark.long),
        pytest.param(2, 1, marks=pytest.mark.long),
    ],
)
def test_resuming_on_another_layout_goes_on_alike(
    unbroken: Path, tiny_config_file: Path, tmp_path: Path, ranks: int, stage: int
) -> None:
    folder = broken_off(unbroken, tmp_path / "run")
    # No dropout: its noise belongs to a rank. The reference is resumed the same way.
    reference = broken_off(unbroken, tmp_path / "reference")
    for path in (folder, reference):
        text = (path / "config.yaml").read_text().replace("dropout: 0.1", "dropout: 0.0")
        (path / "config.yaml").write_text(text)
    still = ("--model.dropout", "0.0")
    run(tiny_config_file, 2, reference, *still)
    run(
        *(tiny_config_file, ranks, folder, *still),
        *("--run.deepspeed_config", f"configs/deepspeed/zero{stage}.json"),
    )
    expected = losses(reference)
    for step, loss in losses(folder).items():
        assert loss == pytest.approx(expected[step], rel=2e-5), step


def test_kill_9_anywhere_loses_nothing_but_time(
    unbroken: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(tiny_config_file, 2, folder, "--run.save_minutes", "0")
    wait_for_step(folder, 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run(tiny_config_file, 2, folder)
    assert losses(folder) == losses(unbroken)


def test_a_signal_saves_and_says_that_the_run_can_go_on(
    unbroken: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(tiny_config_file, 1, folder, "--data.micro_batch_size", "8")
    wait_for_step(folder, 2, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output[-3000:]
    assert "SIGTERM: saving" in output
    stopped_at = max(losses(folder))
    assert (folder / "checkpoints" / f"step-{stopped_at:08d}" / "state.json").exists()
    run(tiny_config_file, 1, folder, "--data.micro_batch_size", "8")
    assert sorted(losses(folder)) == list(range(1, STEPS + 1))


def test_a_finished_run_is_left_as_it_is(unbroken: Path, tiny_config_file: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (unbroken / "checkpoints").rglob("*")}
    output = run(tiny_config_file, 1, unbroken)
    assert "is finished" in output
    assert {p: p.stat().st_mtime_ns for p in (unbroken / "checkpoints").rglob("*")} == before


def test_another_config_in_the_same_folder_is_refused(
    unbroken: Path, tiny_config_file: Path
) -> None:
    output = run(tiny_config_file, 1, unbroken, "--masking.rate", "0.3", code=2)
    assert "masking.rate: was 0.5, is 0.3" in output
    assert "Traceback" not in output


def test_the_deepspeed_launcher_starts_it(tiny_config_file: Path, tmp_path: Path) -> None:
    """The command that users type, with its own --local_rank argument."""
    launcher = Path(sys.executable).with_name("deepspeed")
    environment = os.environ | {"PATH": f"{launcher.parent}:{os.environ['PATH']}"}
    options = ["--num_accelerators", "2", "--master_port", "29731"]
    script = command(tiny_config_file, 1, tmp_path / "run", "--budget.steps", "2")[1:]
    result = subprocess.run(
        [str(launcher), *options, *script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert (tmp_path / "run" / "hf" / "config.json").exists()


STAGES = "[{start: 0.25, rate: 0.3}, {start: 0.75, insert_layer: 1}]"


def test_a_run_with_stages_resumes_in_the_right_one(tiny_config_file: Path, tmp_path: Path) -> None:
    staged = ("--masking.schedule", STAGES, "--run.save_minutes", "0")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    output = run(tiny_config_file, 1, whole, *staged, "--run.keep_checkpoints", "99")
    assert "row from 25 % of the run on" in output
    assert max(losses(whole)) == STEPS
    shutil.copytree(whole, broken, ignore=shutil.ignore_patterns("hf"))
    for checkpoint in (broken / "checkpoints").iterdir():
        if int(checkpoint.name.rpartition("-")[2]) > BREAK:
            shutil.rmtree(checkpoint)
    run(tiny_config_file, 1, broken, *staged, "--run.keep_checkpoints", "99")
    assert losses(broken) == losses(whole)
    plain = tmp_path / "plain"
    run(tiny_config_file, 1, plain)
    first = STEPS // 4
    assert losses(plain)[first] == losses(whole)[first]
    assert losses(plain)[first + 1] != losses(whole)[first + 1]


@pytest.mark.long
def test_a_compiled_run_goes_as_the_eager_one(tiny_config_file: Path, tmp_path: Path) -> None:
    fixed = ("--masking.schedule", STAGES, "--model.dropout", "0", "--run.precision", "fp32")
    run(tiny_config_file, 2, tmp_path / "eager", *fixed)
    run(tiny_config_file, 2, tmp_path / "compiled", *fixed, "--run.compile", "true")
    eager, compiled = losses(tmp_path / "eager"), losses(tmp_path / "compiled")
    assert eager.keys() == compiled.keys()
    for step, loss in eager.items():
        assert compiled[step] == pytest.approx(loss, rel=1e-4)
